"""A folder whose prompts are served as they come, change and go."""

import logging
import os
import pathlib

import pytest

from prompt_jax.errors import UserError
from prompt_jax.serving.watch import Watched


class Engine:
  """Has what the files say; a file that begins with "bad" is none."""

  def __init__(self, **has):
    self.has, self.added = dict(has), []

  @property
  def names(self):
    return tuple(self.has)

  def __getitem__(self, name):
    return self.has[name]

  def add(self, name, file):
    text = pathlib.Path(file).read_text()
    self.added.append((name, text))
    if text.startswith('bad'):
      raise UserError(f'{file} is\nbad')
    self.has[name] = text

  def remove(self, name):
    del self.has[name]


@pytest.fixture
def looking(tmp_path):
  engine = Engine()
  return tmp_path, engine, Watched(str(tmp_path), engine, {})


def twice(watched):
  """Whether there is a new prompt."""
  return watched.look() or watched.look()


def test_prompts_follow_the_files(looking):
  folder, engine, watched = looking
  (folder / 'a.safetensors').write_text('1')
  (folder / 'run').mkdir()
  (folder / 'run' / 'prompt.safetensors').write_text('2')
  (folder / 'notes.txt').write_text('no prompt')
  assert twice(watched)
  assert engine.has == {'a': '1', 'run': '2'}
  assert not twice(watched)
  assert len(engine.added) == 2
  (folder / 'a.safetensors').write_text('new')
  twice(watched)
  assert engine.has == {'a': 'new', 'run': '2'}
  (folder / 'other').write_text('put')
  os.replace(folder / 'other', folder / 'a.safetensors')
  (folder / 'run' / 'prompt.safetensors').unlink()
  twice(watched)
  assert engine.has == {'a': 'put'}


def test_a_file_that_is_being_written_is_left_alone(looking):
  folder, engine, watched = looking
  for text in ('h', 'ha', 'half'):
    (folder / 'a.safetensors').write_text(text)
    watched.look()
  assert engine.added == []
  watched.look()
  assert engine.has == {'a': 'half'}


def test_a_bad_file_is_told_once_and_the_old_prompt_stays(looking, caplog):
  folder, engine, watched = looking
  (folder / 'a.safetensors').write_text('good')
  twice(watched)
  (folder / 'a.safetensors').write_text('bad')
  (folder / 'b.safetensors').write_text('bad too')
  with caplog.at_level(logging.WARNING):
    assert not twice(watched)
    assert not twice(watched)
  assert engine.has == {'a': 'good'}
  told = [record.getMessage() for record in caplog.records]
  assert sorted(pathlib.Path(line.split()[0]).name for line in told) == [
    'a.safetensors',
    'b.safetensors',
  ]
  assert not any('\n' in line for line in told)
  (folder / 'b.safetensors').write_text('better')
  (folder / 'a.safetensors').unlink()
  twice(watched)
  assert engine.has == {'b': 'better'}


def test_prompts_from_elsewhere_stay_and_a_folder_that_is_gone_takes_none(tmp_path, caplog):
  folder = tmp_path / 'watched'
  folder.mkdir()
  (folder / 'mine.safetensors').write_text('1')
  (folder / 'given.safetensors').write_text('2')
  engine = Engine(mine='from elsewhere', named='2')
  watched = Watched(
    str(folder), engine, {'mine': '/elsewhere', 'named': f'{folder}/given.safetensors'}
  )
  with caplog.at_level(logging.WARNING):
    twice(watched)
  assert engine.has == {'mine': 'from elsewhere', 'named': '2'}
  assert len(caplog.records) == 1
  folder.rename(tmp_path / 'away')
  twice(watched)
  assert engine.has == {'mine': 'from elsewhere', 'named': '2'}
  (tmp_path / 'away').rename(folder)
  (folder / 'given.safetensors').write_text('changed')
  twice(watched)
  assert engine.has['named'] == 'changed'


def test_what_is_there_at_first_is_taken_at_once(looking):
  folder, engine, watched = looking
  (folder / 'a.safetensors').write_text('1')
  watched.look(at_once=True)
  assert engine.has == {'a': '1'}


def test_a_prompt_that_took_the_place_of_the_folder_s_stays(looking):
  folder, engine, watched = looking
  (folder / 'a.safetensors').write_text('of the folder')
  twice(watched)
  engine.has['a'] = 'sent'
  (folder / 'a.safetensors').unlink()
  twice(watched)
  assert engine.has == {'a': 'sent'}
  (folder / 'a.safetensors').write_text('not taken')
  twice(watched)
  assert engine.has == {'a': 'sent'}
