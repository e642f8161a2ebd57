"""Training from recorded examples on a machine that has neither TensorFlow nor seqio."""

import subprocess
import sys
import textwrap

from prompt_jax.checkpoints.backbone import vocabulary_of
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_task
from prompt_jax.data.recorded import record, replay
from prompt_jax.data.vocabulary import ByteVocabulary
from tests.shared import mentions

# None in sys.modules is Python's way to say that a module is not there.
WITHOUT = textwrap.dedent("""
  import sys

  for name in ('tensorflow', 'tensorflow_datasets', 'tensorflow_text', 'seqio'):
    sys.modules[name] = None
  from prompt_jax.cli.main import main
  sys.exit(main(sys.argv[1:]))
""")


def test_a_prompt_is_tuned_from_a_recording(model, reviews, sizes, tmp_path):
  splits = ['train', 'validation', 'test']
  record(tmp_path / 'r.npz', local_task(reviews), splits, vocabulary_of(model), Lengths(16, 6))
  out = tmp_path / 'out'
  command = ['train', '--model', model, '--data', str(tmp_path / 'r.npz'), '--length=4', *sizes]
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT, *command, '--steps=2', '--output', str(out)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert load_prompt(out / 'prompt.safetensors').metadata['step'] == 2


def test_a_task_is_recorded_from_the_command_line(model, tmp_path, capsys):
  file = tmp_path / 'd.npz'
  command = ['tasks', 'docstrings_iid', '--record', str(file), '--model', model]
  assert main([*command, '--input_length=32']) == 0
  assert mentions(capsys.readouterr().out, 'train', 'validation', 'test', 'docstrings_iid')
  again = replay(file)
  examples = again.load('test', ByteVocabulary(), Lengths(32, 64))
  assert len(examples) > 100
  assert max(len(e.inputs) for e in examples) == 32
  assert again.labels is not None
  assert examples[0].targets_text in again.labels
