"""`pretrain` end to end on a tiny model: both stages, and a model folder at the end."""

import functools
import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.cli.main import main
from prompt_jax.data.vocabulary import load_vocabulary
from prompt_jax.models.t5.config import T5Config
from prompt_jax.pretraining.pretrain import _held_out, _vocabulary
from prompt_jax.pretraining.text_stream import TextStream
from prompt_jax.pretraining.train_vocabulary import train_vocabulary
from tests.shared import mentions

WORDS = (
  'the server opens a socket and sends bytes over the network to another host which reads them'
)


@pytest.fixture(scope='module')
def command(tmp_path_factory) -> list[str]:
  folder = tmp_path_factory.mktemp('pretrain')
  words = WORDS.split()
  documents = [' '.join(words[i % 17 :] + words[: i % 13] * 3) for i in range(120)]
  (folder / 'text.txt').write_text('\n\n'.join(documents), encoding='utf-8')
  return [
    'pretrain', '--corpus', str(folder / 'text.txt'), '--output', str(folder / 'made'),
    '--vocabulary', 'bytes', '--gin.T5Config.vocab_size=384', '--gin.STEPS=2',
    '--gin.ADAPT_STEPS=3', '--gin.BATCH_SIZE=4', '--gin.INPUT_LENGTH=48',
    '--gin.TOKEN_VECTORS=True', '--gin.WARMUP_STEPS=1',
  ]  # fmt: skip


@pytest.fixture(scope='module')
def made(command) -> pathlib.Path:
  assert main(command) == 0
  return pathlib.Path(command[4])


def test_both_stages_leave_their_losses(made):
  for stage in ('span_corruption', 'prefix_lm'):
    records = (made / 'runs' / stage / 'metrics.jsonl').read_text().splitlines()
    evaluated = [r for r in map(json.loads, records) if r['kind'] == 'eval']
    assert 'held_out_loss' in evaluated[-1]


def test_the_folder_is_a_model(made):
  backbone = load_backbone(str(made))
  assert backbone.name == 'made'
  assert backbone.config.emb_dim == 32


def test_the_same_command_again_keeps_the_model(made, command):
  before = (made / 'model.safetensors').read_bytes()
  assert main(command) == 0
  assert (made / 'model.safetensors').read_bytes() == before


def test_vectors_need_heads_that_fill_the_width(command, capsys):
  assert main([*command, '--gin.T5Config.head_dim=4']) == 2
  assert 'num_heads * head_dim = emb_dim' in capsys.readouterr().err


def test_bytes_are_no_words_to_choose_from(command, tmp_path, capsys):
  elsewhere = [*command[:4], str(tmp_path / 'other'), *command[5:]]
  assert main([*elsewhere, '--gin.CHOICE_SHARE=0.5']) == 2
  assert 'choice_share' in capsys.readouterr().err


def test_goes_on_from_a_model(made, command, tmp_path):
  adapted = tmp_path / 'adapted'
  more = ['pretrain', '--model', str(made), '--corpus', command[2], '--output', str(adapted)]
  sizes = ['--gin.BATCH_SIZE=4', '--gin.INPUT_LENGTH=48', '--gin.WARMUP_STEPS=0']
  assert main([*more, *sizes, '--steps', '0', '--adapt_steps', '1']) == 0
  assert not (adapted / 'runs' / 'span_corruption').exists()
  before, after = (load_backbone(str(folder)) for folder in (made, adapted))
  assert after.config == before.config
  assert after.fingerprint != before.fingerprint
  # A first step: the weights are near those that it began with, far from those of another start.
  first, last = (b.params['token_embedder']['embedding'] for b in (before, after))
  assert np.abs(last - first).max() < 0.1 * np.abs(first).max()


@pytest.mark.parametrize(
  ('more', 'says'),
  [
    (['--vocabulary', 'bytes'], ('vocabulary',)),
    (['--gin.TOKEN_VECTORS=True'], ('token_vectors',)),
    (['--output', 'made'], ('made',)),
    (['--adapt_steps', '40'], ('40',)),
  ],
)
def test_what_a_given_model_decides(made, command, tmp_path, capsys, more, says):
  more = [str(made) if word == 'made' else word for word in more]
  begun = ['pretrain', '--model', str(made), '--corpus', command[2], '--output', str(tmp_path)]
  assert main([*begun, *more]) == 2
  assert mentions(capsys.readouterr().err, *says)


def documents(seed: int, last: str) -> list[str]:
  """Longer than SentencePiece takes at once; only their last parts have the word `last`."""
  rng = np.random.default_rng(seed)
  letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
  known = [''.join(rng.choice(letters, 5)) for _ in range(150)]
  return [' '.join([*rng.choice(known, 1500), *[last] * 100]) for _ in range(3)]


def test_the_vocabulary_is_of_the_whole_text(tmp_path):
  path = tmp_path / 'made.model'
  train_vocabulary(documents(0, 'zygomorphic'), 400, path)
  words = load_vocabulary(path)
  assert len(words.encode('zygomorphic')) <= 2
  assert words.decode(words.encode('\u20ac')) == '\u20ac'  # bytes stand in for what it never saw


def test_a_vocabulary_left_by_another_text_is_not_taken(tmp_path):
  cfg = T5Config(500, 16, 2, 8, 1, 1, 16)
  made = [
    _vocabulary(None, documents(seed, 'last'), cfg, tmp_path, Console(quiet=True)).sha256
    for seed in (0, 1)
  ]
  assert made[0] != made[1]


def test_dropout_is_a_rate(command, tmp_path):
  losses = []
  for rate in ('0.0', '0.5'):
    out = tmp_path / rate
    more = ['--output', str(out), f'--gin.DROPOUT={rate}', '--steps', '0']
    assert main([*command, *more]) == 0
    losses.append((out / 'model.safetensors').read_bytes())
  assert losses[0] != losses[1]


def test_a_short_text_is_measured_in_fewer_rows_than_a_batch():
  make = functools.partial(
    TextStream, inputs=12, targets=4, sentinels=range(99, 90, -1), eos=1, content=None, seed=0,
    objective='span_corruption',
  )  # fmt: skip
  tokens = np.arange(2, 82, dtype=np.int32)
  (batch,) = _held_out(make, tokens, 32, 0.0)
  assert 1 < len(batch.encoder_input_tokens) < 32
