"""prompt_jax from Python, as in a notebook: defaults, checks and record are the command line's."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding

import prompt_jax as pj
from prompt_jax.cli import arguments
from prompt_jax.cli.main import main
from prompt_jax.configuration import description
from prompt_jax.loading import Devices
from prompt_jax.sharding import placement

ROWS = [(f'it was {w} no {i}', x) for i in range(20) for w, x in (('good', 'yes'), ('bad', 'no'))]
SMALL = {
  'steps': 3, 'batch_size': 8, 'input_length': 16, 'target_length': 6, 'length': 2,
  'eval_every': 0, 'quiet': True,
}  # fmt: skip
# `length` is a setting of the methods in gin/prompts.
OF_ANY_METHOD = {name: value for name, value in SMALL.items() if name != 'length'}


class Shifted(pj.PromptMethod):
  """Rows before the input, one of them in the middle of nothing: a method of a user."""

  length: int = 2

  @nn.compact
  def __call__(self, ctx):
    rows = self.param('rows', nn.initializers.normal(1.0), (self.length, ctx.input_dims.H))
    return pj.Injections(encoder=pj.Injection(prefix=rows[None]))


@pytest.fixture(scope='module')
def trained(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('api') / 'out'
  return pj.train(data=ROWS, model=model, output=str(folder), **SMALL)


def test_every_public_name_is_there_and_listed():
  assert set(pj.__all__) == {'__version__', *pj._DEFINED_IN}
  for name in pj.__all__:
    assert getattr(pj, name) is not None
  assert set(pj.__all__) <= set(dir(pj))
  with pytest.raises(AttributeError, match='no_such_name'):
    _ = pj.no_such_name


def test_a_run_returns_scores_its_history_and_its_files(trained):
  assert 0 <= trained.scores['tuned prompt']['accuracy'] <= 100
  assert 'majority class' in trained.scores
  assert trained.file.is_file()
  kinds = [(r['kind'], r['step']) for r in trained.curve]
  assert ('eval', 3) in kinds
  saved = [json.loads(x) for x in (trained.folder / 'metrics.jsonl').read_text().splitlines()]
  assert list(trained.curve) == saved
  assert trained.plot()._repr_png_().startswith(b'\x89PNG')
  page = trained._repr_html_()
  assert page.startswith('<table>')
  assert 'tuned prompt' in page


def test_the_record_is_that_of_the_command_line(trained, model, reviews, tmp_path):
  """The same names, and the same values but for the data, which are rows here."""
  flags = [f'--{n}={v}' for n, v in SMALL.items() if n != 'quiet']
  assert (
    main(['train', f'--model={model}', f'--data={reviews}', f'--output={tmp_path}', *flags]) == 0
  )
  read = lambda f: description.settings_of_text((f / 'operative_config.gin').read_text())
  here, there = read(trained.folder), read(tmp_path)
  differ = {n for n in here.keys() | there.keys() if here.get(n) != there.get(n)}
  assert differ == {'DATA', 'OUTPUT'}
  assert 'prompt_jax.train(' in (trained.folder / 'command.txt').read_text()


@pytest.mark.parametrize(
  ('change', 'name'),
  [
    ({'learning_rate': 0.5}, 'LEARNING_RATE'),
    ({'data': ROWS[:-1]}, 'data'),
    ({'loss': pj.Loss(label_smoothing=0.1)}, 'LOSS'),
  ],
)
def test_a_run_with_another_setting_is_not_resumed(trained, model, change, name):
  with pytest.raises(pj.UserError, match=name):
    pj.train(
      **{'data': ROWS, 'model': model, 'output': str(trained.folder), **SMALL, 'steps': 4, **change}
    )


def test_more_steps_resume_and_rows_may_be_another_list_of_the_same(model, tmp_path):
  first = pj.train(data=ROWS, model=model, output=str(tmp_path), **SMALL)
  again = pj.train(data=list(ROWS), model=model, output=str(tmp_path), **{**SMALL, 'steps': 5})
  assert (first.runs[0].step, again.runs[0].step) == (3, 5)


def test_predict_and_generate(trained):
  tuned = pj.load(trained.file)
  answers = tuned.predict(['it was good', '', 'it was bad'])
  assert [a.text for a in answers] == ['it was good', '', 'it was bad']
  assert {a.prediction for a in answers} <= {'yes', 'no'}
  assert all(0 < a.probability <= 1 for a in answers)
  (alone,) = tuned.predict(['it was good'])
  assert alone.prediction == answers[0].prediction
  assert alone.probability == pytest.approx(answers[0].probability, abs=1e-5)
  written = tuned.generate(['it was good'], max_new_tokens=5)
  assert [type(text) for text in written] == [str]
  assert tuned.generate(['it was good'], max_new_tokens=5) == written
  assert len(tuned.predictors) == 2, 'programs are kept'
  assert 'rows' in tuned._repr_html_()
  assert '<table>' in answers._repr_html_()
  with pytest.raises(pj.UserError, match='length_penalty'):
    tuned.generate(['it was good'], beams=2, length_penalty=-1.0)
  with pytest.raises(pj.UserError, match='list'):
    tuned.predict('one text')
  with pytest.raises(pj.UserError, match='texts'):
    tuned.predict([])


def test_answers_are_those_of_the_command_line(trained, capsys):
  answer = pj.predict(['it was good'], trained.file)[0]
  assert main(['infer', '--prompt_file', str(trained.file), 'it was good']) == 0
  label, share, _ = capsys.readouterr().out.strip().split('\t')
  assert (label, float(share)) == (answer.prediction, pytest.approx(answer.probability, abs=1e-3))


def test_evaluate_returns_scores(trained):
  found = pj.evaluate(trained.file, data=ROWS, resamples=10, quiet=True)
  (scores,) = found.scores.values()
  assert 0 <= scores['accuracy'] <= 100
  assert 'accuracy' in found._repr_html_()


def test_a_method_a_task_and_a_loss_of_ones_own(model, tmp_path):
  task = pj.local_task(ROWS, name='moods')
  run = pj.train(
    task=task, model=model, prompt=Shifted(length=3), loss=pj.Loss(label_smoothing=0.1),
    output=str(tmp_path), learning_rate=0.1, **OF_ANY_METHOD,
  )  # fmt: skip
  assert run.measured.task == 'moods'
  tuned = pj.load(run.file)
  assert jnp.shape(tuned.ready.variables['params']['prompt']['rows']) == (3, 32)


def test_population_returns_every_prompt(model, tmp_path):
  found = pj.population(
    data=ROWS, model=model, output=str(tmp_path), learning_rates=[0.1, 1.0], seeds=[0, 1], **SMALL
  )
  assert [(r.setting['LEARNING_RATE'], r.seed) for r in found.runs] == [
    (0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1),
  ]  # fmt: skip
  assert all(r.file.is_file() for r in found.runs)


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    ({'lr': 0.1}, 'learning_rate'),
    ({'epochs': 3}, 'steps'),
    ({'stepz': 3}, "'steps'"),
    ({'steps': 'many'}, 'STEPS'),
    ({'prompt': 'prefixx'}, "'prefix'"),
    ({'data': ROWS, 'prompt': Shifted(), 'length': 3}, 'length'),
    ({'task': 'docstrings_iid', 'data': ROWS}, 'data'),
    ({}, 'task'),
  ],
)
def test_mistakes_are_told_in_words_of_python(settings, said):
  with pytest.raises(pj.UserError, match=said) as e:
    pj.train(**settings)
  assert '--' not in str(e.value)
  assert e.value._render_traceback_() == [f'UserError: {e.value}']


def test_defaults_are_those_of_the_flags():
  shown = pj.help_of('train')
  assert 'steps = 1000' in shown
  for name in ('batch_size', 'learning_rate', 'patience', 'dtype'):
    assert f'\n  {name} = ' in shown
  for name in ('prompt', 'init', 'loss', 'optimizer', 'schedule'):
    assert f'\n  {name}: ' in shown
  assert 'low_rank' in shown
  assert pj.help_of('eval') == pj.help_of('evaluate')
  with pytest.raises(pj.UserError, match='population'):
    pj.help_of('predict')


def test_what_is_loaded_lies_on_the_devices_of_all_processes(trained, monkeypatch):
  mesh = placement.make((1, 1), 'data', jax.devices(), None)
  monkeypatch.setattr(Devices, 'start', lambda self: mesh)
  on_mesh, texts = pj.load(trained.file), ['it was good', 'it was bad', 'it was']
  rows = jax.tree.leaves(on_mesh.ready.variables)
  assert all(isinstance(leaf.sharding, NamedSharding) for leaf in rows)
  monkeypatch.undo()
  alone = pj.load(trained.file)
  of = lambda tuned: [(a.prediction, round(a.probability, 4)) for a in tuned.predict(texts)]
  assert of(on_mesh) == of(alone)
  assert on_mesh.generate(texts, max_new_tokens=3) == alone.generate(texts, max_new_tokens=3)


def test_custom_method_in_a_script_is_found_again(model, tmp_path):
  """A method that is defined in a file of the user's: trained, then loaded by another process."""
  (tmp_path / 'my_method.py').write_text(
    'import flax.linen as nn\nimport prompt_jax as pj\n\n\n'
    'class Mine(pj.PromptMethod):\n  length: int = 2\n\n'
    '  @nn.compact\n  def __call__(self, ctx):\n'
    "    rows = self.param('rows', nn.initializers.normal(1.0), (self.length, ctx.input_dims.H))\n"
    '    return pj.Injections(encoder=pj.Injection(prefix=rows[None]))\n'
  )
  script = (
    'import prompt_jax as pj, my_method\n'
    f'run = pj.train(data={ROWS!r}, model={model!r}, prompt=my_method.Mine(), output="out", '
    f'learning_rate=0.1, **{OF_ANY_METHOD!r})\n'
    'print(run.file)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  load = (
    f'import prompt_jax as pj; print(pj.load({done.stdout.strip()!r}).predict(["a"])[0].prediction)'
  )
  again = subprocess.run(
    [sys.executable, '-c', load], cwd=tmp_path, capture_output=True, text=True, timeout=300
  )
  assert again.stdout.strip() in ('yes', 'no'), again.stderr


def test_settings_of_python_and_flags_are_one_table():
  args = arguments.parse(['train', '--steps=3'])
  assert args.steps == 3
  assert 'steps' in pj.help_of('train')
