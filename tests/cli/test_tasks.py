"""`prompt-jax tasks`: the list, one task before and after preprocessing, and the check."""

import json
import re

import pytest

from prompt_jax.cli.main import main
from tests.shared import mentions


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'trec').mkdir()
  rows = [{'question': f'Q{"x" * i}?', 'label': ('human', 'number')[i % 2]} for i in range(40)]
  (tmp_path / 'trec' / 'train.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (tmp_path / 'trec' / 'test.jsonl').write_text(json.dumps(rows[3]))
  return str(tmp_path)


def said(capsys, *command, code=0):
  assert main(['tasks', *command]) == code
  out, err = capsys.readouterr()
  return err if code else out


def test_the_list_and_its_filter(capsys):
  everything = said(capsys)
  for name in ('docstrings_iid', 'glue_ax', 'xnli', 'mrqa', 'c4_prefix_lm', 'wmt16_en_ro'):
    assert f'{name}  ' in everything
  names = [line.split()[0] for line in said(capsys, '--filter', 'NLI').splitlines()]
  assert {'rte', 'xnli', 'americas_nli', 'snli'} <= set(names)
  assert 'squad' not in names
  assert 'nusax_senti' in said(capsys, '--filter', 'javanese')
  assert "'zzz'" in said(capsys, '--filter', 'zzz', code=2)


def test_one_task_before_and_after(capsys, folder):
  out = said(capsys, 'trec', '--folder', folder, '--examples', '1')
  assert 'train.jsonl:1): {"question": "Q?", "label": "human"}' in out
  assert 'test.jsonl:1): {"question": "Qxxx?", "label": "number"}' in out
  assert '  trec question: Qxxx?\n    -> number' in out


def test_the_check(capsys, folder, model):
  command = ('check', 'trec', '--folder', folder, '--model', model)
  out = said(capsys, *command, '--input_length', '30', '--target_length', '20')
  assert re.search(r'\b6 label[^\n]*\b13\b', out)
  lines = {line.split('│')[1].strip(): line for line in out.splitlines() if line.count('│') > 2}
  assert 'label human' in lines
  assert '100.0 %' in lines['label number']  # of the test split, where there is but one example
  assert '0.0 %' in lines['unknown tokens']
  # The test row stands in the training file too.
  assert lines['inputs of the training split'].split('│')[-2].strip() in ('0', '1')
  assert '0.0 %' in lines['longer than 20']
  error = said(capsys, *command, '--target_length', '5', code=2)
  assert mentions(error, "'abbreviation'", '13')


def test_label_words_of_the_same_tokens_are_refused(capsys, folder, tmp_path):
  import sentencepiece

  text = tmp_path / 'text.txt'
  text.write_text('entertainment human number abc def ghi\n' * 50)
  sentencepiece.SentencePieceTrainer.train(
    input=str(text), model_prefix=str(tmp_path / 'v'), vocab_size=40, pad_id=0, eos_id=1,
    unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
  )  # fmt: skip
  rows = [{'text': 'a b', 'label': label, 'idx': i} for i, label in enumerate(['Ω', 'Ψ'] * 5)]
  place = tmp_path / 'banking77'
  place.mkdir()
  for split in ('train', 'validation'):
    (place / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  error = said(
    capsys, 'check', 'banking77', '--folder', str(tmp_path), '--vocabulary',
    str(tmp_path / 'v.model'), code=2,
  )  # fmt: skip
  assert 'tokens' in error


def test_a_file_of_ones_own_is_checked_and_shown(capsys, tmp_path, model):
  file = tmp_path / 'own.tsv'
  rows = [f'{i}\tfilm {i % 20}\t{("good", "bad")[i % 3 == 0]}' for i in range(40)]
  file.write_text('\n'.join(['id\tsubject\tlabel', *rows]))
  command = ('--data', str(file), '--text', 'subject', '--model', model)
  assert main(['tasks', 'check', *command]) == 0
  out, err = capsys.readouterr()
  assert mentions(err, 'warning: own, train', 'more than one label')
  assert mentions(out, 'own', '2 label words', 'label good')
  shown = said(capsys, *command)
  assert mentions(shown, 'subject -> label', 'labels: bad, good', '-> good')
  said(capsys, *command, '--record', str(tmp_path / 'own.npz'))
  assert (tmp_path / 'own.npz').is_file()
  assert mentions(said(capsys, *command[:2], code=2), '--text', "'subject'")
  assert mentions(said(capsys, 'trec', *command, code=2), 'trec', '--data')


def test_mistakes(capsys):
  assert 'one task' in said(capsys, 'check', code=2)
  assert 'one task' in said(capsys, 'rte', 'cb', code=2)
  assert mentions(said(capsys, '--record', 'x.npz', code=2), '--record', 'task')
  assert 'name' in said(capsys, 'docstrings_iid', '--filter', 'x', code=2)
