"""The trace of a run: which steps are in it, and that it ends whatever ends the run."""

import gzip
import json

import jax
import pytest
from toy_run import ToyStream, toy_train

from prompt_jax.errors import UserError
from prompt_jax.training.monitor import Profile
from tests.shared import mentions


def traced(folder) -> list[str]:
  """The steps and kinds of events of a trace, in order."""
  (path,) = folder.glob('plugins/profile/*/*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  ours = [e for e in events if e.get('name') in ('train', 'input')]
  ours.sort(key=lambda e: e['ts'])
  return [e['args']['step_num'] if e['name'] == 'train' else 'input' for e in ours]


@pytest.mark.parametrize(
  ('done', 'steps', 'want'),
  [(0, 1000, (20, 25)), (40, 1000, (60, 65)), (0, 12, (7, 12)), (0, 3, (0, 3)), (8, 10, (8, 10))],
)
def test_steps_after_the_first_are_traced_or_the_last(done, steps, want, tmp_path):
  profile = Profile(tmp_path, done, steps, None)
  assert (profile.first, profile.last) == want


def test_a_run_leaves_the_trace_of_five_steps(tmp_path, capsys):
  toy_train(tmp_path / 'a', steps=12, profile=True)
  found = traced(tmp_path / 'a' / 'profile')
  assert [x for x in found if x != 'input'] == ['8', '9', '10', '11', '12']
  assert 'input' in found
  printed = ' '.join(capsys.readouterr().out.split())
  assert mentions(printed, '8', '12', str(tmp_path / 'a' / 'profile'))
  toy_train(tmp_path / 'b', steps=12)
  assert not (tmp_path / 'b' / 'profile').exists()
  # A trace changes nothing.
  one, other = ((tmp_path / x / 'prompt.safetensors').read_bytes() for x in 'ab')
  assert one == other


def test_a_run_that_fails_within_the_trace_ends_it(tmp_path):
  with pytest.raises(UserError, match='step 9'):
    toy_train(tmp_path, steps=12, profile=True, stream=ToyStream(end=9))
  assert [x for x in traced(tmp_path / 'profile') if x != 'input'] == ['8', '9']
  with jax.profiler.trace(tmp_path / 'again'):  # none is under way
    pass
