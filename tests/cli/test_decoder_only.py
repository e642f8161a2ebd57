"""A decoder-only model through the commands: converted, tuned, evaluated, asked, refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import prompt_jax as pj
from tests import tiny_llama
from tests.shared import mentions


def command(*argv):
  return subprocess.run(
    [sys.executable, '-m', 'prompt_jax', *map(str, argv)],
    capture_output=True,
    text=True,
    timeout=600,
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tiny_llama.write(tmp_path_factory.mktemp('llama') / 'llama')


@pytest.fixture(scope='module')
def tuned(folder, reviews, tmp_path_factory):
  """A prompt behind the input, tuned by the command on the folder of transformers."""
  place = tmp_path_factory.mktemp('decoder_only')
  done = command('convert', folder, place / 'model')
  assert done.returncode == 0, done.stderr
  assert 'the same logits' in done.stdout
  done = command(
    'train', '--model', place / 'model', '--data', reviews, '--output', place / 'run',
    '--prompt', 'input', '--length', 4, '--steps', 4, '--eval_every', 4, '--batch_size', 8,
    '--input_length', 16, '--target_length', 8, '--gin.PROMPT_PLACEMENT="after_eos"',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return place


def test_an_answer_is_that_of_transformers_with_the_same_rows(folder, tuned):
  """The rows stand behind the user's turn, as `inputs_embeds` of the model they were tuned on."""
  text = 'it was good no 3'
  prompt = pj.load(tuned / 'run' / 'prompt.safetensors')
  answer = prompt.predict([text])[0]
  words = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
  rows = torch.tensor(load_file(tuned / 'run' / 'prompt.safetensors')['params/decoder/prompt'])
  cut = lambda s: words.encode(s, add_special_tokens=False)
  table = model.get_input_embeddings()
  found = {}
  for label in ('bad', 'good'):
    before, behind = cut(f'<|im_start|>user\n{text}<|im_end|>'), cut('\n<|im_start|>assistant\n')
    target = [*cut(label), 2]
    with torch.no_grad():
      parts = [table(torch.tensor(before)), rows, table(torch.tensor(behind + target))]
      logits = model(inputs_embeds=torch.cat(parts)[None]).logits[0]
    log_probs = torch.log_softmax(logits[-len(target) - 1 : -1], -1)
    found[label] = float(sum(log_probs[i, t] for i, t in enumerate(target)))
  assert answer.prediction == max(found, key=found.__getitem__)
  weights = np.exp(list(found.values()))
  assert abs(answer.probability - max(weights) / sum(weights)) < 1e-4


def test_it_is_evaluated_and_asked(tuned, reviews):
  prompt = tuned / 'run' / 'prompt.safetensors'
  done = command('eval', '--prompt_file', prompt, '--data', reviews, '--output', tuned / 'eval')
  assert done.returncode == 0, done.stderr
  done = command('infer', '--prompt_file', prompt, 'it was fine')
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip()


def test_several_prompts_train_at_once_and_equal_one(tuned, reviews):
  done = command(
    'population', '--model', tuned / 'model', '--data', reviews, '--output', tuned / 'several',
    '--prompt', 'prefix_zero', '--length', 4, '--seeds', '0,1', '--steps', 2,
    '--eval_every', 2, '--batch_size', 8, '--input_length', 16, '--target_length', 8,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert len(list((tuned / 'several').glob('*/prompt.safetensors'))) == 2


def test_single_rows_are_kept_where_they_stand(tuned):
  prompt, kept = tuned / 'run' / 'prompt.safetensors', tuned / 'kept.safetensors'
  done = command('edit', 'keep', prompt, kept, '--rows', '0,1,2,3')
  assert done.returncode == 0, done.stderr
  first, second = (pj.load(file).predict(['it was bad'])[0] for file in (prompt, kept))
  assert first.prediction == second.prediction
  assert abs(first.probability - second.probability) < 1e-6


def test_a_prompt_belongs_to_what_stands_around_its_input(tuned, tmp_path):
  other = shutil.copytree(tuned / 'model', tmp_path / 'other')
  about = json.loads((other / 'config.json').read_text())
  about['architecture']['before'] = []
  (other / 'config.json').write_text(json.dumps(about))
  prompt = tuned / 'run' / 'prompt.safetensors'
  done = command('infer', '--prompt_file', prompt, '--model', other, 'it was fine')
  assert done.returncode == 2
  assert mentions(done.stderr, 'fingerprint'), done.stderr


def test_prompts_of_two_kinds_answer_in_one_batch_as_alone(tuned, reviews):
  """Rows behind the input, and keys and values."""
  run = pj.train(
    model=str(tuned / 'model'), data=reviews, output=str(tuned / 'prefix'), prompt='prefix_zero',
    length=3, steps=2, eval_every=0, batch_size=8, input_length=16, target_length=8,
    device='cpu',
  )  # fmt: skip
  files = [tuned / 'run' / 'prompt.safetensors', run.file]
  texts = ['it was good no 3', 'bad, and longer than the other']
  alone = [pj.load(file).predict(texts) for file in files]
  both = pj.load(files)
  for first, second in ((0, 1), (1, 0)):
    mixed = both.predict(texts, prompts=[both.names[first], both.names[second]])
    for found, expected in zip(mixed, (alone[first][0], alone[second][1]), strict=True):
      assert found.prediction == expected.prediction
      assert abs(found.probability - expected.probability) < 1e-5


@pytest.mark.parametrize(
  ('argv', 'says'),
  [
    (['train', '--pack', '--data', 'REVIEWS', '--output', 'OUT', '--steps', 1], ['pack']),
    (['train', '--dropout', 0.1, '--data', 'REVIEWS', '--output', 'OUT'], ['dropout', '0.1']),
    (['convert', 'MODEL', 'OUT', '--to', 'hf'], ['decoder-only', 'Hugging Face']),
    (['convert', 'MODEL', 'OUT', '--to', 't5x'], ['decoder-only', 'T5X']),
    (['export', 'PROMPT', 'OUT', '--to', 'peft'], ['decoder-only', 'PEFT']),
    (['export', 'PROMPT', 'OUT', '--to', 'stablehlo'], ['decoder-only', 'stablehlo']),
    (['import', 'ROWS', 'OUT'], ['decoder-only', 'import']),
    (['plan', '--topology', 'v5e-1'], ['decoder-only', 'plan']),
  ],
  ids=lambda value: ' '.join(map(str, value)),
)
def test_what_only_a_t5_has_is_refused_in_a_line(tuned, reviews, tmp_path, argv, says):
  places = {
    'MODEL': tuned / 'model',
    'OUT': tmp_path / 'out',
    'REVIEWS': reviews,
    'PROMPT': tuned / 'run' / 'prompt.safetensors',
    'ROWS': tmp_path / 'rows.npy',
  }
  np.save(places['ROWS'], np.zeros((4, 32), np.float32))
  argv = [places.get(part, part) for part in argv]
  named = [] if argv[0] in ('convert', 'export') else ['--model', tuned / 'model']
  done = command(*argv, *named)
  assert done.returncode == 2, done.stderr
  assert mentions(done.stderr.lower(), *(word.lower() for word in says)), done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'out').exists() or not any((tmp_path / 'out').iterdir())


def test_a_folder_says_what_it_is(tuned):
  about = json.loads((tuned / 'model' / 'config.json').read_text())
  assert about['family'] == 'causal'
  assert about['vocabulary']['kind'] == 'tokenizer'
  done = command('inspect', tuned / 'model')
  assert done.returncode == 0, done.stderr
