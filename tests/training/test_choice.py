"""The choice between the best and the last prompt on all validation examples."""

import io

import numpy as np
import pytest
from rich.console import Console

from prompt_jax.checkpoints.prompt_file import Prompt, load_prompt, save_prompt
from prompt_jax.training.choice import choose_on_all
from prompt_jax.training.members import Ended, Result, Selection

FACTS = {'base_model': 'toy', 'fingerprint': 'f', 'method': 'Prompt', 'width': 2}


def result(folder, best=40, last=100, ended=None, kind='prompt'):
  folder.mkdir()
  for name, step in ((kind, best), ('last', last)):
    metadata = {**FACTS, 'step': step, 'metric': 'accuracy', 'value': 99.0}
    prompt = Prompt({'rows': np.full((1, 2), step, np.float32)}, {}, metadata, kind=kind)
    save_prompt(folder / f'{name}.safetensors', prompt)
  file = folder / f'{kind}.safetensors'
  return Result(last, {}, Selection(99.0, best), 'accuracy', file, {}, folder, ended)


def chosen(results, *values, mode='max'):
  found = {}

  def measure(candidates):
    found.update(dict(zip([(k, p.stem) for k, p in candidates], values, strict=True)))
    return values

  out = io.StringIO()
  again = choose_on_all(results, measure, mode, 3000, Console(file=out, width=200))
  return again, list(found), out.getvalue()


@pytest.mark.parametrize(
  ('values', 'mode', 'step'),
  [((70.0, 80.0), 'max', 100), ((80.0, 70.0), 'max', 40), ((0.5, 0.4), 'min', 100),
   ((70.0, 70.0), 'max', 40)],
)  # fmt: skip
@pytest.mark.parametrize('kind', ['prompt', 'weights'])
def test_the_better_one_on_all_examples_is_kept(tmp_path, values, mode, step, kind):
  given = result(tmp_path / 'run', kind=kind)
  (found,), asked, said = chosen([given], *values, mode=mode)
  assert asked == [(0, kind), (0, 'last')]
  kept = load_prompt(given.file, kind)
  assert kept.params['rows'][0, 0] == kept.metadata['step'] == found.selection.step == step
  value = values[step == 100]
  assert kept.metadata['value'] == found.selection.best == value
  assert kept.metadata['validation_examples'] == 3000
  assert f'{value:.4g}' in said
  assert '3,000' in said
  # The same again, as after a kill in between, changes no byte.
  before = given.file.read_bytes()
  same = (value, values[1])
  assert chosen([given], *same, mode=mode)[0][0].selection == found.selection
  assert given.file.read_bytes() == before


def test_what_was_dropped_or_chose_nothing_is_left(tmp_path):
  dropped = result(tmp_path / 'a', ended=Ended(100, 'halving'))
  patient = result(tmp_path / 'b', ended=Ended(100, 'patience'))
  nothing = Result(5, {}, Selection(), None, tmp_path / 'c/prompt.safetensors', {}, tmp_path / 'c')
  found, asked, _ = chosen([dropped, patient, nothing], 10.0, 20.0, 30.0)
  assert asked == [(0, 'prompt'), (1, 'prompt'), (1, 'last')]
  assert [r.selection.best for r in found] == [10.0, 30.0, None]
