"""Runs are found at any depth and read as they stand; what cannot be read is named."""

import json

import pytest

from prompt_jax.errors import UserError
from prompt_jax.reports.find import find
from tests.reports import folders
from tests.shared import facts


def named(*places):
  runs = find([str(p) for p in places]).runs
  assert len({run.name for run in runs}) == len(runs)
  return {run.name: run for run in runs}


def test_a_finished_run(tmp_path):
  folders.run(tmp_path / 'a')
  (run,) = find([str(tmp_path)]).runs
  assert (run.name, run.verb, run.task, run.split) == ('a', 'train', 'colours', 'test')
  assert (run.model, run.method, run.rows) == ('tiny', 'input prompt', 2)
  assert (run.trained, run.parameters, run.rate) == (8, 1000, 0.3)
  assert (run.steps, run.wanted, run.seeds, run.status) == (100, 100, (0,), 'finished')
  assert run.scores == ({'accuracy': 50.0, 'f1_macro': 25.0},)
  assert run.score[0] == 'accuracy'
  assert (run.metric, run.best) == ('accuracy', (40.0,))
  assert run.labels == ('red', 'green')
  # 100 steps of 8 examples at 16 a second, and two evaluations of 2 seconds.
  assert run.seconds == 100 * 8 / 16 + 2 * 2


def test_runs_are_found_at_any_depth_and_once(tmp_path):
  folders.run(tmp_path / 'x' / 'a')
  folders.run(tmp_path / 'x' / 'a' / 'state' / 'b')  # a saved state is no run
  folders.run(tmp_path / 'y')
  assert list(named(tmp_path)) == ['x/a', 'y']
  assert list(named(tmp_path / 'x', tmp_path / 'y')) == ['x/a', 'y']
  assert list(named(tmp_path / 'y', tmp_path)) == ['y', f'{tmp_path.name}/x/a']
  assert list(named(tmp_path / 'y')) == ['y']


def test_folders_of_the_same_name_keep_theirs_apart(tmp_path):
  for above in ('x', 'y'):
    folders.run(tmp_path / above / 'out' / 'a')
  places = [tmp_path / above / 'out' for above in ('x', 'y')]
  assert list(named(*places)) == [f'{place}/a' for place in places]


def test_seeds_are_one_run_with_mean_and_deviation(tmp_path):
  folders.seeds(tmp_path / 'a', [40.0, 60.0])
  (run,) = find([str(tmp_path)]).runs
  assert run.seeds == (0, 1)
  mean, std, n = run.metrics['accuracy']
  assert (mean, n) == (50.0, 2)
  assert std == pytest.approx(200**0.5)
  assert run.best == (40.0, 41.0)
  (alone,) = find([str(tmp_path / 'a' / 'seed_1')]).runs  # without the folder above
  assert (alone.task, alone.method, alone.status) == ('colours', 'input prompt', 'not measured')


def test_an_unfinished_run_says_where_it_stands(tmp_path):
  folders.run(tmp_path / 'a')
  (tmp_path / 'a' / 'results.json').unlink()
  folders.records(tmp_path / 'a', {50: 1.0}, {50: {'accuracy': 30.0}})
  with open(tmp_path / 'a' / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 60, "kind": "tr')  # being written
  found = find([str(tmp_path)])
  (run,) = found.runs
  assert (run.status, run.steps, run.scores, run.best) == ('unfinished', 50, (), (30.0,))
  assert found.unreadable == ()


def test_a_run_that_goes_on_for_more_steps_has_no_score_yet(tmp_path):
  folders.run(tmp_path / 'a', STEPS=200)
  (run,) = find([str(tmp_path)]).runs
  assert (run.status, run.steps, run.scores) == ('unfinished', 100, ())


def test_a_run_that_patience_stopped_is_finished(tmp_path):
  folders.run(tmp_path / 'a', STEPS=200, PATIENCE=1)
  (run,) = find([str(tmp_path)]).runs
  assert run.status == 'finished'


def test_a_seed_that_has_not_begun_is_told(tmp_path):
  folders.seeds(tmp_path / 'a', [40.0, 60.0])
  folders.config(tmp_path / 'a', SEEDS=[0, 1, 2])
  (run,) = find([str(tmp_path)]).runs
  assert (run.status, run.scores) == ('unfinished', ())
  assert run.note == 'seed 0 at step 100, seed 1 at step 100, seed 2 not begun'


def test_a_run_without_examples_to_judge_by_is_not_measured(tmp_path):
  folders.run(tmp_path / 'a')
  (tmp_path / 'a' / 'results.json').unlink()
  (run,) = find([str(tmp_path)]).runs
  assert (run.status, run.steps) == ('not measured', 100)


def test_the_configuration_stands_in_for_a_prompt_file(tmp_path):
  folders.config(tmp_path / 'a', TASK="['red', 'blue']")
  (run,) = find([str(tmp_path)]).runs
  assert (run.task, run.model, run.method, run.rows) == ('red+blue', 'tiny', 'input prompt', 2)
  assert (run.status, run.steps, run.wanted) == ('unfinished', 0, 100)
  folders.config(tmp_path / 'b', PROMPT=None, TRAINABLE="('.*',)", TASK=None, DATA="'x/r.tsv'")
  (run,) = find([str(tmp_path / 'b')]).runs
  assert (run.task, run.method) == ('r', 'model tuning')


def test_an_evaluation_says_what_was_measured(tmp_path):
  folders.run(tmp_path / 'a')
  file = tmp_path / 'a' / 'prompt.safetensors'
  folders.config(tmp_path / 'a' / 'test', 'eval', PROMPT_FILE=f"'{file}'")
  systems = {str(file): {'scores': [{'accuracy': 45.0}], 'trained': None}}
  facts = {'task': 'colours', 'split': 'validation', 'systems': systems}
  (tmp_path / 'a' / 'test' / 'results.json').write_text(json.dumps(facts))
  run = named(tmp_path)['a/test']
  assert (run.verb, run.method, run.trained, run.split) == ('eval', 'input prompt', 8, 'validation')
  file.unlink()
  found = find([str(tmp_path)])
  assert next(r for r in found.runs if r.verb == 'eval').method is None
  assert [u.path.name for u in found.unreadable] == ['prompt.safetensors']
  folders.config(tmp_path / 'a' / 'test', 'eval', PROMPT_FILE=None)
  run = named(tmp_path)['a/test']
  assert (run.method, run.trained) == ('untuned', 0)


def test_an_evaluation_of_several_prompts(tmp_path):
  """Each prompt, then what they say together."""
  files = []
  for name in ('a', 'b'):
    folders.run(tmp_path / name)
    folders.prompt(tmp_path / name, length=len(files) + 1)
    files.append(str(tmp_path / name / 'prompt.safetensors'))
  place = tmp_path / 'eval'
  folders.config(place, 'eval', PROMPT_FILE=files)
  of = lambda accuracy: {'scores': [{'accuracy': accuracy}], 'trained': None}
  systems = {'a': of(10.0), 'b': of(20.0), 'mean': of(15.0), 'best: b': of(20.0)}
  systems['majority vote'] = of(30.0)
  facts = {'task': 'colours', 'split': 'test', 'prompts': files, 'systems': systems}
  (place / 'results.json').write_text(json.dumps(facts))
  for name in ('predictions-1', 'predictions-2', 'vote'):
    (place / f'{name}.jsonl').write_text('')
  found = find([str(place)])
  assert found.unreadable == ()
  assert [(r.name, r.method, r.rows, [p.name for p in r.predictions]) for r in found.runs] == [
    ('eval/a', 'input prompt', 1, ['predictions-1.jsonl']),
    ('eval/b', 'input prompt', 2, ['predictions-2.jsonl']),
    ('eval/majority vote', 'majority vote', None, ['vote.jsonl']),
  ]
  assert {r.model for r in found.runs} == {'tiny'}


def population(folder, told: bool):
  """Two rates and two seeds, one of which diverged."""
  folders.config(folder, 'population', SEEDS=[0, 1])
  prompts = []
  for rate in (0.1, 1.0):
    for seed in (0, 1):
      name = f'learning_rate_{rate}-seed_{seed}'
      lost = (rate, seed) == (1.0, 1)
      folders.records(folder / name, {40 if lost else 100: 1.0}, {40: {'accuracy': rate}})
      gin = f'LEARNING_RATE = {rate}\n'
      folders.prompt(folder / name, 'initial' if lost else 'prompt', gin=gin)
      ended = {'step': 40, 'why': 'diverged'} if lost else None
      scores = None if lost else {'accuracy': 50 * rate + seed}
      prompts.append({'name': name, 'seed': seed, 'ended': ended, 'scores': scores})
  if told:
    systems = {'majority vote of 3': {'scores': [{'accuracy': 70.0}], 'trained': None}}
    facts = {'task': 'colours', 'split': 'test', 'prompts': prompts, 'systems': systems}
    (folder / 'results.json').write_text(json.dumps(facts))


def test_a_population_is_a_run_for_each_setting_and_the_vote(tmp_path):
  population(tmp_path / 'p', told=True)
  found = named(tmp_path)
  assert list(found) == ['p/learning_rate_0.1', 'p/learning_rate_1.0', 'p/vote']
  small, great, vote = found.values()
  assert small.scores == ({'accuracy': 5.0}, {'accuracy': 6.0})
  assert (small.rate, great.rate, small.seeds) == (0.1, 1.0, (0, 1))
  assert great.scores == ({'accuracy': 50.0},)
  assert (great.status, great.note) == ('finished', 'seed 1 diverged at step 40')
  assert (vote.method, vote.scores) == ('majority vote of 3', ({'accuracy': 70.0},))


def test_a_population_that_goes_on(tmp_path):
  population(tmp_path / 'p', told=False)
  small, great = named(tmp_path).values()
  assert (small.status, great.status) == ('not measured', 'unfinished')
  assert great.note == 'seed 0 at step 100, seed 1 at step 40'


def test_pretraining_is_a_run_for_each_stage(tmp_path):
  folders.config(tmp_path / 'm', 'pretrain', ADAPT_STEPS=50, ADAPT_LEARNING_RATE=0.02)
  stage = tmp_path / 'm' / 'runs' / 'span_corruption'
  losses = {50: {'held_out_loss': 3.0}, 100: {'held_out_loss': 2.0}}
  folders.records(stage, {100: 2.5}, losses)
  first, second = named(tmp_path).values()
  assert (first.name, first.task) == ('m/runs/span_corruption', 'span_corruption')
  assert first.scores == ({'held_out_loss': 2.0},)
  assert (second.task, second.status, second.wanted, second.rate) == (
    'prefix_lm', 'unfinished', 50, 0.02,
  )  # fmt: skip


def test_the_best_score_is_the_least_where_the_mode_says_so(tmp_path):
  folders.run(tmp_path / 'a', **{'settings.Settings.mode': "'min'"})
  (run,) = find([str(tmp_path)]).runs
  assert run.best == (30.0,)


@pytest.mark.parametrize(
  ('fields', 'patterns', 'name'),
  [
    ({}, ['prompt/.*'], 'input prompt'),
    ({'encoder': True, 'decoder': True}, ['prompt/.*'], 'input prompt, decoder'),
    ({'encoder': False, 'decoder': True}, ['prompt/.*'], 'input prompt, decoder only'),
    ({'table': {'class': 'a.tables.Plain'}}, ['prompt/.*'], 'input prompt'),
    ({'table': {'class': 'a.tables.LowRank'}}, ['prompt/.*'], 'input prompt, low rank'),
    ({}, ['prompt/.*', '.*bias'], 'input prompt and prompt/.*, .*bias'),
  ],
)
def test_methods_that_differ_have_different_names(fields, patterns, name, tmp_path):
  folders.run(tmp_path)
  described = {'class': 'a.prompts.input_prompt.InputPrompt', 'fields': fields}
  folders.prompt(tmp_path, method_config=described, patterns=patterns)
  (run,) = find([str(tmp_path)]).runs
  assert run.method == name


DAMAGE = {
  'results.json': [b'{"task": ', b'[]', b'{"task": "t", "systems": {"a": 1}}', b'\xff\xfe',
                   b'{"systems": {}}',
                   b'{"task": "t", "systems": {"a": {"scores": [{"x": "y"}]}}}'],
  'operative_config.gin': [b'STEPS = \xff', b'STEPS = many', b'SEEDS = 3', b'SEEDS = [[]]'],
}  # fmt: skip


@pytest.mark.parametrize(('name', 'data'), [(n, d) for n, all_ in DAMAGE.items() for d in all_])
def test_a_damaged_folder_is_named_and_the_others_are_read(name, data, tmp_path):
  folders.run(tmp_path / 'a')
  folders.run(tmp_path / 'b')
  (tmp_path / 'a' / name).write_bytes(data)
  found = find([str(tmp_path)])
  assert [run.name for run in found.runs] == ['b']
  assert [u.path for u in found.unreadable] == [tmp_path / 'a']
  assert name in found.unreadable[0].why


def test_a_damaged_prompt_file_is_named_and_the_run_is_still_read(tmp_path):
  folders.run(tmp_path)
  (tmp_path / 'prompt.safetensors').write_bytes(b'no prompt')
  found = find([str(tmp_path)])
  assert [u.path.name for u in found.unreadable] == ['prompt.safetensors']
  (run,) = found.runs
  assert (run.method, run.scores[0]['accuracy']) == ('input prompt', 50.0)


def test_lines_that_are_no_records_are_counted(tmp_path):
  folders.run(tmp_path)
  path = tmp_path / 'metrics.jsonl'
  path.write_text('nonsense\n{"step": "x"}\n' + path.read_text())
  found = find([str(tmp_path)])
  assert '2 of 6 lines' in found.unreadable[0].why
  assert found.runs[0].steps == 100


def test_references_of_several_runs_stand_once(tmp_path):
  folders.run(tmp_path / 'a')
  folders.run(tmp_path / 'b')
  systems = [(r.system, r.model) for r in find([str(tmp_path)]).references]
  assert systems == [('majority class', None), ('the model, untuned', 'tiny')]


def test_mistakes_say_what_was_looked_for(tmp_path):
  folders.run(tmp_path / 'runs')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=facts("rums'", 'empty', 'runs')):
    find([str(tmp_path / 'rums')])
  with pytest.raises(UserError, match=facts('file', 'folder')):
    find([str(tmp_path / 'runs' / 'results.json')])
  with pytest.raises(UserError, match=facts('empty', 'operative_config.gin', 'metrics.jsonl')):
    find([str(tmp_path / 'empty')])
