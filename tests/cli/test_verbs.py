"""The verbs end to end, on a tiny model and a file: train, go on, eval, infer, inspect."""

import importlib.util
import io
import json
import pathlib
import sys

import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.cli.conftest import GOOD
from tests.shared import mentions, resumed


def flags(model, reviews, sizes) -> list[str]:
  return ['--model', model, '--data', reviews, '--length=4', '--gin.EVAL_EVERY=2', *sizes]


@pytest.fixture(scope='module')
def trained(model, reviews, sizes, tmp_path_factory) -> pathlib.Path:
  """The output folder of a run."""
  out = tmp_path_factory.mktemp('out')
  assert main(['train', *flags(model, reviews, sizes), '--steps=4', '--output', str(out)]) == 0
  return out


def test_train_leaves_what_the_documentation_says(trained, model):
  for name in (
    'prompt.safetensors', 'last.safetensors', 'initial.safetensors', 'curve.png', 'metrics.jsonl',
    'results.json', 'predictions.jsonl', 'operative_config.gin', 'command.txt', 'state',
  ):  # fmt: skip
    assert (trained / name).exists(), name
  has_library = importlib.util.find_spec('tensorboard') is not None
  assert (trained / 'tensorboard').exists() == has_library
  prompt = load_prompt(trained / 'prompt.safetensors')
  assert prompt.params['encoder']['prompt'].shape == (4, 32)
  assert prompt.metadata['labels'] == ['bad', 'good']
  assert prompt.metadata['model'] == model
  assert prompt.metadata['length'] == 4
  assert 'STEPS = 4' in (trained / 'operative_config.gin').read_text()


def test_a_prompt_begins_with_the_labels(trained, model):
  rows = load_prompt(trained / 'initial.safetensors').params['encoder']['prompt']
  backbone = load_backbone(model)
  embedding = np.asarray(backbone.params['token_embedder']['embedding'], np.float32)
  for row, label in zip(rows, ('bad', 'good'), strict=False):
    wanted = embedding[backbone.vocabulary.encode(label)].mean(axis=0)
    np.testing.assert_allclose(row, wanted, atol=1e-6)


def test_train_measures_baselines_beside_the_prompt(trained):
  results = json.loads((trained / 'results.json').read_text())
  systems = results['systems']
  assert list(systems) == [
    'majority class', 'TF-IDF + logistic regression', 'the model, untuned', 'tuned prompt',
  ]  # fmt: skip
  assert systems['majority class']['scores'] == [{'accuracy': 50.0}]
  assert systems['tuned prompt']['trained'] == 4 * 32


def test_the_same_command_again_changes_nothing(trained, model, reviews, sizes, capsys):
  before = (trained / 'prompt.safetensors').read_bytes()
  command = ['train', *flags(model, reviews, sizes), '--steps=4', '--output', str(trained)]
  assert main(command) == 0
  assert resumed(4) in capsys.readouterr().out
  assert (trained / 'prompt.safetensors').read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(trained, model, reviews, sizes, capsys):
  command = [*flags(model, reviews, sizes), '--steps=4', '--output', str(trained)]
  assert main(['train', *command, '--learning_rate=0.1']) == 2
  err = capsys.readouterr().err
  assert mentions(err, 'LEARNING_RATE', '%PROMPT_LEARNING_RATE', '0.1')


def test_eval_gives_the_score_of_the_training_run(trained, reviews, tmp_path):
  assert main(['eval', '--prompt_file', str(trained / 'prompt.safetensors'), '--data', reviews,
               '--output', str(tmp_path)]) == 0  # fmt: skip
  predictions = [json.loads(s) for s in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
  assert len(predictions) == 60
  scores = json.loads((tmp_path / 'results.json').read_text())['systems'].popitem()[1]['scores']
  right = 100 * np.mean([p['prediction'] == p['target'] for p in predictions])
  assert scores[0]['accuracy'] == pytest.approx(right)


def test_words_for_labels_go_with_the_prompt(model, reviews, sizes, tmp_path):
  words = {'bad': 'poor', 'good': 'fine'}
  settings = [f'--gin.choose.words={words}', '--gin.choose.labels=["good", "bad"]']
  command = ['train', *flags(model, reviews, sizes), *settings, '--steps=1']
  assert main([*command, '--output', str(tmp_path / 'out')]) == 0
  prompt = tmp_path / 'out/prompt.safetensors'
  metadata = load_prompt(prompt).metadata
  assert (metadata['labels'], metadata['words']) == (['fine', 'poor'], words)
  evaluate = ['eval', '--prompt_file', str(prompt), '--data', reviews, '--output', str(tmp_path)]
  assert main(evaluate) == 0
  lines = (tmp_path / 'predictions.jsonl').read_text().splitlines()
  predictions = [json.loads(line) for line in lines]
  for p in predictions:
    assert p['target'] == ('fine' if any(word in p['input'] for word in GOOD) else 'poor')
    assert p['correct'] == (p['prediction'] == p['target'])
    assert list(p['scores']) == ['fine', 'poor']  # the order of training
  others = """--gin.choose.words={'bad': 'awful', 'good': 'great'}"""
  assert main([*evaluate[:-1], str(tmp_path / 'others'), others]) == 0
  for line in (tmp_path / 'others/predictions.jsonl').read_text().splitlines():
    assert list(json.loads(line)['scores']) == ['great', 'awful']


def test_infer_ranks_labels_and_gives_their_probability(trained, capsys):
  prompt = str(trained / 'prompt.safetensors')
  assert main(['infer', '--prompt_file', prompt, 'it was good', 'it was bad']) == 0
  lines = [line.split('\t') for line in capsys.readouterr().out.splitlines()]
  assert [text for _, _, text in lines] == ['it was good', 'it was bad']
  assert all(label in ('good', 'bad') and 0.5 <= float(p) <= 1 for label, p, _ in lines)


def test_labels_can_be_decoded_and_normalised(trained, reviews, tmp_path, capsys):
  prompt = ['--prompt_file', str(trained / 'prompt.safetensors')]
  found = {}
  for name, more in (
    ('rank', ['--method=rank']),
    ('tokens', ['--normalize=tokens']),
    ('constrained', ['--method=constrained']),
  ):
    out = tmp_path / name
    assert main(['eval', *prompt, '--data', reviews, *more, '--output', str(out)]) == 0
    lines = (out / 'predictions.jsonl').read_text().splitlines()
    found[name] = [json.loads(line) for line in lines]
    assert all(p['prediction'] in ('good', 'bad') and 0 < p['confidence'] <= 1 for p in found[name])
  assert set(found['constrained'][0]['scores']) == {'log_prob'}
  for a, b in zip(found['rank'], found['tokens'], strict=True):
    # A token a byte, and the end.
    want = {label: a['scores'][label] / (len(label) + 1) for label in ('bad', 'good')}
    assert b['scores'] == pytest.approx(want, abs=1e-5)
  capsys.readouterr()
  for more, says in (
    (['--method=constrained', '--decoding=greedy'], ['constrained', 'decoding']),
    (['--method=constrained', '--normalize=tokens'], ['ormali', 'rank']),
    (['--decoding=greedy', '--normalize=tokens'], ['ormali', 'rank']),
    (['--beams=2', '--temperature=0.5'], ['--beams', '2', '--temperature', '0.5']),
    (['--decoding=nucleus', '--beams=2'], ['--beams', 'temperature']),
    (['--method=rank', '--beams=2'], ['rank', '--method']),
    (['--method=guess'], ['rank', 'constrained', 'generate']),
  ):
    assert main(['infer', *prompt, *more, 'it was good']) == 2
    assert mentions(capsys.readouterr().err, *says)
  assert main(['infer', *prompt, '--method=constrained', 'it was good']) == 0
  label, share, _ = capsys.readouterr().out.split('\t')
  assert label in ('good', 'bad')
  assert 0 < float(share) <= 1


@pytest.mark.parametrize(
  'more', [['--temperature=0'], ['--beams=3', '--length_penalty=0'], ['--top_k=2', '--seed=1']]
)
def test_a_setting_of_generated_text_makes_a_prompt_with_labels_generate(trained, more, tmp_path):
  out = tmp_path / 'answers.jsonl'
  prompt = str(trained / 'prompt.safetensors')
  assert main(['infer', '--prompt_file', prompt, 'one', 'two', '--output', str(out),
               '--max_new_tokens=3', *more]) == 0  # fmt: skip
  answers = [json.loads(line) for line in out.read_text().splitlines()]
  assert all(a['probability'] is None and len(a['prediction'].encode()) <= 9 for a in answers)


def test_eval_generates_with_a_beam(trained, reviews, tmp_path, capsys):
  command = ['eval', '--prompt_file', str(trained / 'prompt.safetensors'), '--data', reviews]
  found = {}
  for beams in (1, 3):
    out = tmp_path / str(beams)
    more = ['--method=generate', f'--beams={beams}', '--length_penalty=0', '--target_length=6']
    assert main([*command, *more, '--output', str(out)]) == 0
    lines = (out / 'predictions.jsonl').read_text().splitlines()
    found[beams] = [json.loads(line)['scores']['log_prob'] for line in lines]
  # A wider beam finds texts that are at least as probable, on the whole.
  assert np.mean(found[3]) >= np.mean(found[1]) - 1e-4
  assert main([*command, '--method=rank', '--beams=3']) == 2
  assert '--beams' in capsys.readouterr().err


def test_standard_input_is_read_as_a_file_is(trained, tmp_path, monkeypatch):
  raw = '\ufeffone\u2028still one\r\n\n two\x0cpage\nlast'.encode()
  (tmp_path / 'texts.txt').write_bytes(raw)
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(raw)))
  command = ['infer', '--prompt_file', str(trained / 'prompt.safetensors')]
  answers = []
  for more in (['--input', str(tmp_path / 'texts.txt')], []):
    out = tmp_path / 'answers.jsonl'
    assert main([*command, *more, '--output', str(out)]) == 0
    answers.append([json.loads(line) for line in out.read_text().split('\n')[:-1]])
  assert answers[0] == answers[1]
  texts = ['one\u2028still one', '', 'two\x0cpage', 'last']
  assert [a['text'] for a in answers[0]] == texts


def test_inspect_prints_the_card_and_draws(trained, tmp_path, capsys):
  prompt = str(trained / 'prompt.safetensors')
  assert main(['inspect', prompt, '--plots', str(tmp_path)]) == 0
  out = capsys.readouterr().out
  for word in ('InputPrompt', 'encoder rows', 'effective rank', 'nearest tokens', 'reviews'):
    assert word in out
  assert (tmp_path / 'prompt.png').read_bytes().startswith(b'\x89PNG')


def test_model_tuning_and_seeds(model, reviews, sizes, tmp_path, capsys):
  command = ['train', '--model', model, '--data', reviews, *sizes, '--steps=2', '--train=all']
  assert main([*command, '--seeds=0,1', '--output', str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert '±' in out
  assert '(100 %)' in out
  one, two = (load_prompt(tmp_path / f'seed_{n}/weights.safetensors', 'weights') for n in (0, 1))
  assert one.metadata['method'] == 'none'
  path = ('backbone', 'encoder', 'encoder_norm', 'scale')
  leaves = []
  for prompt in (one, two):
    leaf = prompt.params
    for key in path:
      leaf = leaf[key]
    leaves.append(leaf)
  assert not np.array_equal(*leaves)
  weights = str(tmp_path / 'seed_0/weights.safetensors')
  assert main(['infer', '--prompt_file', weights, 'it was good']) == 0


def test_a_part_of_the_model_trained_beside_its_prompt_is_usable(
  model, reviews, sizes, tmp_path, capsys
):
  """`--train 'backbone/...'`: the weights file keeps the prompt that they were trained with."""
  command = [*flags(model, reviews, sizes), '--steps=2', '--output', str(tmp_path)]
  assert main(['train', *command, '--train', 'backbone/.*scale']) == 0
  weights = str(tmp_path / 'weights.safetensors')
  assert main(['infer', '--prompt_file', weights, 'it was good']) == 0
  assert main(['inspect', weights]) == 0
  assert 'encoder rows' in capsys.readouterr().out


def test_patience_stops_a_run(model, reviews, sizes, tmp_path, capsys):
  command = [*flags(model, reviews, sizes), '--steps=40', '--output', str(tmp_path)]
  assert main(['train', *command, '--gin.PATIENCE=1', '--learning_rate=1e-9']) == 0
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines]
  assert max(steps) == 4  # two evaluations, the second no better


def test_dropout_changes_the_prompt(trained, model, reviews, sizes, tmp_path):
  command = [*flags(model, reviews, sizes), '--steps=4', '--output', str(tmp_path)]
  assert main(['train', *command, '--gin.DROPOUT=0.3']) == 0
  rows = [
    load_prompt(f / 'last.safetensors').params['encoder']['prompt'] for f in (trained, tmp_path)
  ]
  assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_the_length_of_a_prefix_is_recorded(model, reviews, sizes, tmp_path, capsys):
  command = [*flags(model, reviews, sizes), '--steps=1', '--output', str(tmp_path)]
  assert main(['train', *command, '--prompt', 'prefix_zero']) == 0
  assert load_prompt(tmp_path / 'prompt.safetensors').metadata['length'] == 4
  capsys.readouterr()
  assert main(['inspect', str(tmp_path / 'prompt.safetensors')]) == 0
  assert 'kv_bias' in capsys.readouterr().out


def test_a_test_split_without_labels_is_not_the_score(model, sizes, tmp_path, capsys):
  """As those of GLUE and SuperGLUE."""
  folder, out = tmp_path / 'sst2', tmp_path / 'out'
  folder.mkdir()
  for split, known in (('train', True), ('validation', True), ('test', False)):
    texts = [f'it was {("bad", "good")[i % 2]} {i}' for i in range(24)]
    labels = [i % 2 if known else -1 for i in range(24)]
    pairs = zip(texts, labels, strict=True)
    rows = [{'sentence': t, 'label': y, 'idx': i} for i, (t, y) in enumerate(pairs)]
    (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')
  task = ['--task', 'sst2', '--folder', str(tmp_path)]
  command = ['--model', model, *sizes, '--target_length=9', '--length=2', '--steps=1']
  command += ['--output', str(out)]
  assert main(['train', *task, *command]) == 0
  found = json.loads((out / 'results.json').read_text())
  assert found['split'] == 'validation'
  assert 'accuracy' in found['systems']['tuned prompt']['scores'][0]
  prompt = ['--prompt_file', str(out / 'prompt.safetensors')]
  assert main(['eval', *task, *prompt]) == 0
  assert 'validation' in capsys.readouterr().out
  assert main(['eval', *task, *prompt, '--split', 'test']) == 2
  assert 'labels' in capsys.readouterr().err
  assert main(['eval', *task, *prompt, '--split', 'test', '--output', str(out / 'test')]) == 0
  assert len((out / 'test' / 'predictions.jsonl').read_text().splitlines()) == 24
