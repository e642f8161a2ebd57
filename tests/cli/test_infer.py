"""`prompt-jax infer`: an answer to every line, interrupted files, mistakes."""

import json

import pytest

from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.cli.main import main
from prompt_jax.evaluation import answer_file
from tests.shared import mentions


@pytest.fixture(scope='module')
def prompt(model, reviews, sizes, tmp_path_factory):
  out = tmp_path_factory.mktemp('out')
  command = ['train', '--model', model, '--data', reviews, '--length=4', *sizes, '--steps=2']
  assert main([*command, f'--output={out}']) == 0
  return str(out / 'prompt.safetensors')


def infer(*command, code=0):
  assert main(['infer', *map(str, command)]) == code


def rows(path):
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def test_a_blank_line_has_an_empty_answer(prompt, model, tmp_path, capsys):
  (tmp_path / 'texts.txt').write_text('one\n\n  \ntwo\n')
  command = ('--input', tmp_path / 'texts.txt', '--target_length=6')
  for which in (['--prompt_file', prompt], ['--model', model]):
    capsys.readouterr()
    infer(*which, *command)
    lines = capsys.readouterr().out.split('\n')[:-1]
    assert [bool(line) for line in lines] == [True, False, False, True] or '--model' in which
    assert len(lines) == 4
  infer('--prompt_file', prompt, *command, '--output', tmp_path / 'out.jsonl')
  found = rows(tmp_path / 'out.jsonl')
  assert [a['text'] for a in found] == ['one', '', '', 'two']
  assert found[1] == {'text': '', 'prediction': '', 'probability': None}
  capsys.readouterr()
  infer('--prompt_file', prompt, 'one', '', 'two')
  assert len(capsys.readouterr().out.split('\n')[:-1]) == 3


def test_it_says_how_many_texts_are_cut(prompt, capsys):
  assert main(['infer', '--prompt_file', prompt, '--input_length=8', 'short', 'far too long']) == 0
  assert mentions(capsys.readouterr().err, '50 %', '1 of 2', '8 tokens', 'input_length')


def test_an_answer_is_one_line(monkeypatch, capsys):
  from prompt_jax.cli.infer import _print
  from prompt_jax.runs.results import Answer

  _print([Answer('a\nb', 'x\r\ny'), Answer('c\nd', 'z', 0.5)], None)
  assert capsys.readouterr().out == 'x  y\nz\t0.500\tc d\n'


def test_columns_of_a_table_go_through(prompt, tmp_path, capsys):
  file, out = tmp_path / 'a.jsonl', tmp_path / 'out.jsonl'
  given = [{'id': 7, 'text': ' good ', 'more': {'a': None}}, {'id': 8, 'text': 'bad'}]
  file.write_text('\n'.join(map(json.dumps, given)))
  infer('--prompt_file', prompt, '--input', file, '--output', out)
  for row, found in zip(given, rows(out), strict=True):
    assert row.items() <= found.items()
    assert found['prediction'] in ('good', 'bad')
  file.write_text(json.dumps({'text': 'x', 'prediction': 'y'}))
  infer('--prompt_file', prompt, '--input', file, '--output', tmp_path / 'b', code=2)
  assert mentions(capsys.readouterr().err, 'a.jsonl', 'prediction')


@pytest.mark.parametrize('more', [[], ['--top_k=3'], ['--method=constrained']])
def test_an_interrupted_file_is_finished_as_if_it_had_not_been(
  prompt, more, tmp_path, monkeypatch, capsys
):
  (tmp_path / 'texts.txt').write_text('\n'.join(f'film {i} {"x" * (i % 7)}' for i in range(11)))
  command = ['--prompt_file', prompt, '--input', tmp_path / 'texts.txt', '--batch_size=2', *more]
  infer(*command, '--output', tmp_path / 'whole.jsonl')
  out, add = tmp_path / 'new/out.jsonl', answer_file.add
  calls = []

  def interrupted(path, answers):
    if len(calls) == 3:
      with open(answer_file.partial(path), 'ab') as file:
        file.write(b'{"number": 1, "ans')  # as of a process that was killed
      raise KeyboardInterrupt
    calls.append(sorted(answers))
    add(path, answers)

  monkeypatch.setattr(answer_file, 'add', interrupted)
  infer(*command, '--output', out, code=130)
  assert not out.exists()
  partial = answer_file.partial(out)
  assert len(partial.read_text().split('\n')) == 1 + sum(map(len, calls)) + 1
  monkeypatch.setattr(answer_file, 'add', lambda p, a: (calls.append(sorted(a)), add(p, a)))
  capsys.readouterr()
  infer(
    *command, '--seed=5', '--beams=2' if not more else '--target_length=5', '--output', out, code=2
  )
  assert mentions(capsys.readouterr().err, 'out.jsonl.partial', 'settings', '--output')
  infer(*command, '--output', out)
  assert sorted(i for call in calls for i in call) == list(range(11))
  assert out.read_bytes() == (tmp_path / 'whole.jsonl').read_bytes()
  assert not partial.exists()


def test_an_output_that_cannot_be_written_is_refused_before_a_model_is_used(
  prompt, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr('prompt_jax.runs.predict.Predictor.by_batch', None)
  (tmp_path / 'texts.txt').write_text('one\n')
  (tmp_path / 'file').write_text('')
  (tmp_path / 'bad.partial').write_text('nonsense\n')
  texts = tmp_path / 'texts.txt'
  for output in (tmp_path, tmp_path / 'file/out.jsonl', texts, tmp_path / 'bad'):
    infer('--prompt_file', prompt, '--input', texts, '--output', output, code=2)
    assert mentions(capsys.readouterr().err, str(output))
  assert texts.read_text() == 'one\n'


def test_without_a_prompt_the_model_must_be_named(model, capsys):
  infer('a text', code=2)
  assert mentions(capsys.readouterr().err, 'No prompt', '--prompt_file', '--model', 'embedded')
  infer('--model', model, '--target_length=2', 'a text')


def test_a_prompt_reads_the_columns_that_it_was_tuned_on(model, sizes, tmp_path, capsys):
  pairs = [f'{("good", "bad")[i % 2]} {i}\tfilm {i}\t{("yes", "no")[i % 2]}' for i in range(40)]
  train = tmp_path / 'train.tsv'
  train.write_text('\n'.join(['sentence\tquestion\tlabel', *pairs]))
  columns = ['--text=question,sentence', '--label=label', '--length=2', '--steps=1']
  assert main(['train', f'--data={train}', *columns, f'--model={model}', *sizes,
               f'--output={tmp_path / "out"}']) == 0  # fmt: skip
  file = tmp_path / 'out/prompt.safetensors'
  assert load_facts(file).metadata['columns'] == {
    'inputs': ['question', 'sentence'], 'targets': 'label', 'kind': 'label',
  }  # fmt: skip
  assert main(['eval', f'--data={train}', f'--prompt_file={file}',
               f'--output={tmp_path / "eval"}']) == 0  # fmt: skip
  first = rows(tmp_path / 'eval/predictions.jsonl')[0]
  assert first['input'] == 'question: film 0 sentence: good 0'
  infer(f'--input={train}', f'--prompt_file={file}', f'--output={tmp_path / "answers"}')
  first = rows(tmp_path / 'answers')[0]
  assert first['text'] == 'question: film 0 sentence: good 0'
  assert (first['sentence'], first['label']) == ('good 0', 'yes')
  other = tmp_path / 'other.tsv'
  other.write_text('sentence\tlabel\ngood\tyes\n')
  capsys.readouterr()
  for verb, flag in (('eval', '--data'), ('infer', '--input')):
    assert main([verb, f'{flag}={other}', f'--prompt_file={file}']) == 2
    assert mentions(capsys.readouterr().err, 'other.tsv:1', "'question'", 'tuned')
