"""`prompt-jax convert`, models of other forms given to the other verbs, and a user's mistakes."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from prompt_jax.export import t5x_writer
from tests.shared import mentions


@pytest.fixture(scope='module')
def t5x(model, tmp_path_factory) -> str:
  """The tiny byte model as a T5X checkpoint."""
  folder = tmp_path_factory.mktemp('t5x') / 'written'
  assert main(['convert', model, str(folder), '--to=t5x']) == 0
  return str(folder / 'checkpoint_0')


def test_round_trip_on_the_command_line(t5x, model, tmp_path, capsys):
  hf, back = str(tmp_path / 'hf'), str(tmp_path / 'back')
  assert main(['convert', t5x, hf, '--to', 'hf', '--vocabulary', 'bytes']) == 0
  assert main(['convert', hf, back]) == 0
  out = capsys.readouterr().out
  assert mentions(out, 'T5X', 'Hugging Face')
  assert mentions(out, 'shapes', 'checksums', 'logits')
  first, last = load_backbone(model), load_backbone(back)
  assert first.config == last.config
  assert first.fingerprint == last.fingerprint
  assert first.vocabulary == last.vocabulary
  jax.tree.map(np.testing.assert_array_equal, first.params, last.params)


def test_another_dtype_and_values_only(model, tmp_path, capsys):
  dest = tmp_path / 'half'
  assert main(['convert', model, str(dest), '--dtype=bfloat16', '--verify=values']) == 0
  assert 'logits' not in capsys.readouterr().out
  size = (dest / 'model.safetensors').stat().st_size
  assert size < 0.6 * pathlib.Path(model, 'model.safetensors').stat().st_size
  want = jax.tree.map(lambda x: x.astype('bfloat16'), load_backbone(model).params)
  jax.tree.map(
    np.testing.assert_array_equal, load_backbone(str(dest), dtype='bfloat16').params, want
  )


def test_a_prompt_is_tuned_on_a_t5x_checkpoint(t5x, model, reviews, sizes, tmp_path, capsys):
  out = tmp_path / 'out'
  command = ['train', '--model', t5x, '--vocabulary=bytes', '--data', reviews, '--length=2', *sizes]
  assert main([*command, '--steps=1', '--output', str(out)]) == 0
  prompt = str(out / 'prompt.safetensors')
  metadata = load_prompt(prompt).metadata
  assert metadata['model'] == t5x
  assert metadata['vocabulary_file'] == 'bytes'
  # The same weights in another form are the same model.
  for more in ([], ['--model', model]):
    assert main(['infer', '--prompt_file', prompt, 'it was good', *more]) == 0
  assert main(['inspect', prompt]) == 0
  assert main(['eval', '--prompt_file', prompt, '--data', reviews]) == 0


def test_a_model_is_listed_unread(t5x, model, capsys):
  assert main(['inspect', t5x]) == 0
  out = capsys.readouterr().out
  assert mentions(' '.join(out.split()), 'T5X', 'msgpack', 'zarr')
  assert 'target/decoder/layers_0/self_attention/query/kernel' in out
  assert '[384, 32]' in out
  assert main(['inspect', model]) == 0
  count = sum(x.size for x in jax.tree.leaves(load_backbone(model).params))
  assert f'{count:,}' in capsys.readouterr().out


def test_a_t5x_checkpoint_cannot_say_everything(model, tmp_path, capsys):
  """A distance of 64 is in no shape: the user is told, and can say so when reading."""
  folder = tmp_path / 'near'
  shutil.copytree(model, folder)
  about = json.loads((folder / 'config.json').read_text())
  about['architecture']['relpos_max_distance'] = 64
  (folder / 'config.json').write_text(json.dumps(about))
  assert main(['convert', str(folder), str(tmp_path / 't5x'), '--to=t5x']) == 0
  assert mentions(capsys.readouterr().out, 'relpos_max_distance', '64')
  sizes = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'num_encoder_layers',
           'num_decoder_layers', 'mlp_dim', 'relpos_max_distance')  # fmt: skip
  fields = ''.join(f'  {name} = {about["architecture"][name]}\n' for name in sizes)
  gin = tmp_path / 'near.gin'
  gin.write_text(
    'from __gin__ import dynamic_registration\nfrom prompt_jax.models import config\n'
    f'ARCHITECTURE = @config.T5Config()\nconfig.T5Config:\n{fields}'
  )
  command = ['convert', str(tmp_path / 't5x'), str(tmp_path / 'back'), '--vocabulary=bytes']
  assert main([*command, '--gin_file', str(gin)]) == 0
  assert load_backbone(str(tmp_path / 'back')).config.relpos_max_distance == 64


def no_room(monkeypatch):
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(9, 9, 0))


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (['gone', 'dest'], ["'gone'", 'T5X']),
    (['MODEL', 'MODEL'], ['exists']),
    (['MODEL', 'dest', '--to=torch'], ["'torch'", 'native', 't5x', 'hf']),
    (['MODEL', 'dest', '--dtype=float16'], ["'float16'", 'bfloat16']),
    (['MODEL', 'dest', '--verify=no'], ["'no'", 'logits']),
    (['MODEL', 'file/dest'], ['dest', 'file']),
    (['MODEL', 'dest', '--vocabulary=gone.model'], ['gone.model']),
    (['MODEL', 'dest', '--gin_file=models/t5/tiny.gin'], ['architecture']),
    (['T5X', 'dest'], ['vocabulary', '--vocabulary', 'bytes', 'ByT5']),
    (['T5X', 'dest', '--vocabulary=bytes', '--gin_file=models/t5/tiny.gin'],
     ['decoder/layers/mlp/wi_0/kernel', 'expected']),
    (['file', 'dest'], ['file', 'msgpack']),
    (['MODEL/model.safetensors', 'dest'], ['file', 'folder']),
    (['folder', 'dest'], ['folder']),
  ],
)  # fmt: skip
def test_mistakes(more, words, model, t5x, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').write_text('text')
  (tmp_path / 'folder').mkdir()
  assert main(['convert', *(a.replace('MODEL', model).replace('T5X', t5x) for a in more)]) == 2
  err = capsys.readouterr().err
  assert err.startswith('prompt-jax: ')
  assert 'Traceback' not in err
  for word in words:
    assert word in err
  # Nothing is left where the model should have come.
  assert sorted(p.name for p in tmp_path.iterdir()) == ['file', 'folder']


def test_a_full_disk_is_told_before_writing(model, tmp_path, monkeypatch, capsys):
  no_room(monkeypatch)
  assert main(['convert', model, str(tmp_path / 'dest')]) == 2
  err = capsys.readouterr().err
  assert ' kB' in err  # what it takes, of a model this small
  assert '0 bytes' in err  # what is left


def test_what_was_written_wrong_is_not_kept(model, tmp_path, monkeypatch, capsys):
  right = t5x_writer.write_array

  def wrong(checkpoint, name, array):
    return right(checkpoint, name, array * 2 if name.endswith('wo/kernel') else array)

  monkeypatch.setattr(t5x_writer, 'write_array', wrong)
  assert main(['convert', model, str(tmp_path / 'dest'), '--to=t5x']) == 2
  assert 'wo/kernel' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_damaged_weights_stop_a_training_run_before_it_begins(model, reviews, tmp_path, capsys):
  folder = tmp_path / 'model'
  shutil.copytree(model, folder)
  weights = folder / 'model.safetensors'
  weights.write_bytes(weights.read_bytes()[:-4] + np.float32(np.nan).tobytes())
  out = str(tmp_path / 'out')
  assert main(['train', '--model', str(folder), '--data', reviews, '--output', out]) == 2
  assert 'NaN' in capsys.readouterr().err
