"""The evaluator against each example scored or decoded alone, and what it leaves on disk."""

import dataclasses
import functools
import io
import json

import jax
import numpy as np
import pytest
import sklearn.metrics
from rich.console import Console

from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.errors import UserError
from prompt_jax.evaluation import calibration, evaluator, predictions
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.inference import constrained, decode, score
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.testing import tiny
from tests.shared import facts

LABELS = ('yes', 'not', 'may')  # as many tokens each, so that length does not decide
WIDTH = 6
VOCABULARY = tiny.Vocabulary()


def _task(labels, **changes):
  rng = np.random.default_rng(1)
  words = lambda: ''.join(rng.choice(list('abcdefgh '), rng.integers(2, 15)))
  texts = [
    TextExample(words(), LABELS[i % 3], i % 3 if labels else None, {'answers': ['no', 'maybe']})
    for i in range(11)
  ]
  metrics = ('accuracy', 'f1_macro') if labels else ('exact_match',)
  task = text_task('toy', {'test': lambda: texts}, labels, metrics)
  return dataclasses.replace(task, **changes)


def _examples(task):
  return task.load('test', VOCABULARY, Lengths(32, WIDTH))


@pytest.fixture(scope='module')
def tuned():
  model = PromptedT5(T5(tiny.config()))
  variables = jax.jit(model.init)(jax.random.key(2), tiny.batch())
  kernel = variables['params']['backbone']['decoder']['logits_dense']['kernel']
  variables['params']['backbone']['decoder']['logits_dense']['kernel'] = 4.0 * kernel
  return model, variables


@pytest.fixture(scope='module')
def ranking(tuned):
  return evaluator.Evaluator(
    tuned[0], VOCABULARY, _task(LABELS), max_target_length=WIDTH, batch_size=4
  )


def _padded(example, width=16):
  return np.pad(example.inputs, (0, width - len(example.inputs)))[None]


def test_rank_gives_each_example_its_own_scores_in_order(tuned, ranking):
  model, variables = tuned
  task = _task(LABELS)
  examples = _examples(task)
  scores, predictions = ranking(variables, examples)
  labels = task.label_tokens(VOCABULARY, WIDTH)
  alone = jax.jit(functools.partial(score.rank, model))
  hits = []
  for example, prediction in zip(examples, predictions, strict=True):
    want = np.asarray(alone(variables, _padded(example), labels))[0]
    np.testing.assert_allclose(list(prediction.scores.values()), want, atol=3e-4)
    assert list(prediction.scores) == list(LABELS)
    assert prediction.prediction == LABELS[want.argmax()]
    assert prediction.correct == (want.argmax() == example.label)
    assert (prediction.input, prediction.target) == (example.inputs_text, example.targets_text)
    hits.append(want.argmax() == example.label)
  assert len({p.prediction for p in predictions}) > 1, 'the case must not be constant'
  assert scores['accuracy'] == pytest.approx(100 * np.mean(hits))
  assert ranking(variables, examples) == (scores, predictions)


def test_f1_macro_counts_a_label_that_no_example_has(tuned, ranking):
  examples = [dataclasses.replace(e, label=e.label % 2) for e in _examples(_task(LABELS))]
  scores, predictions = ranking(tuned[1], examples)
  found = [LABELS.index(p.prediction) for p in predictions]
  want = sklearn.metrics.f1_score(
    [e.label for e in examples], found, labels=[0, 1, 2], average='macro', zero_division=0
  )
  assert scores['f1_macro'] == pytest.approx(100 * want)
  assert want > 0


def test_evaluating_again_compiles_nothing(tuned, ranking):
  examples = _examples(_task(LABELS))
  before = []
  ranking(tuned[1], examples, before.append)
  compiled = ranking._call._cache_size()
  ranking(tuned[1], examples)
  assert ranking._call._cache_size() == compiled <= 4
  assert before == [3, 4, 4], 'of 11 examples one batch is not full, whatever their widths'


@pytest.mark.parametrize('sees_input', [True, False])
def test_ranking_in_parts_is_ranking(tuned, monkeypatch, sees_input):
  """On a CPU; a prompt that is computed once for all rows is not computed once a part."""
  model = PromptedT5(tuned[0].backbone, InputPrompt(3, sees_input=sees_input))
  drawn = jax.jit(model.init)(jax.random.key(3), tiny.batch())['params']['prompt']
  variables = {'params': {**tuned[1]['params'], 'prompt': drawn}}
  examples, asked = _examples(_task(LABELS)), []

  def ranked(parts):
    def chosen(*shape):
      asked.append(shape)
      return parts

    monkeypatch.setattr(evaluator, 'parts_for_caches', chosen)
    found = evaluator.Evaluator(
      model, VOCABULARY, _task(LABELS), max_target_length=WIDTH, batch_size=4
    )
    return [list(p.scores.values()) for p in found(variables, examples)[1]]

  np.testing.assert_allclose(ranked(2), ranked(1), rtol=1e-4)
  assert bool(asked) == sees_input


def test_generate_decodes_each_example_as_if_alone(tuned):
  model, variables = tuned
  task = _task(None)
  examples = [dataclasses.replace(e, fields={}) for e in _examples(task)]
  run = evaluator.Evaluator(model, VOCABULARY, task, max_target_length=WIDTH, batch_size=4)
  assert run.method == 'generate'
  _, predictions = run(variables, examples)
  alone = jax.jit(functools.partial(decode.greedy, model, max_len=WIDTH))
  texts = [VOCABULARY.decode(np.asarray(alone(variables, _padded(e)))[0]) for e in examples]
  assert [p.prediction for p in predictions] == texts
  assert len(set(texts)) > 3
  # With the model's own texts as targets everything is right; with one changed, one is wrong.
  own = [dataclasses.replace(e, targets_text=t) for e, t in zip(examples, texts, strict=True)]
  assert run(variables, own)[0] == {'exact_match': 100.0}
  own[3] = dataclasses.replace(own[3], targets_text='other')
  scores, predictions = run(variables, own)
  assert scores['exact_match'] == pytest.approx(100 * 10 / 11)
  assert [p.correct for p in predictions] == [i != 3 for i in range(11)]
  # Any of several answers is right.
  own[3] = dataclasses.replace(own[3], fields={'answers': ['other', texts[3]]})
  assert run(variables, own)[0] == {'exact_match': 100.0}
  # A measure of the task's own replaces the metrics, and sees the texts.
  measured = dataclasses.replace(task, score=lambda e, t: {'same': 100.0 * (list(t) == texts)})
  options = {'max_target_length': WIDTH, 'batch_size': 4}
  got, _ = evaluator.Evaluator(model, VOCABULARY, measured, **options)(variables, examples)
  assert got == {'same': 100.0}


@pytest.mark.parametrize(
  ('text', 'label'), [('yes', 0), (' not ', 1), ('Yes', -1), ('', -1), ('may not', -1)]
)
def test_a_generated_text_is_a_label_only_if_it_is_its_words(text, label):
  assert evaluator.label_of(text, LABELS) == label


def test_examples_without_labels_are_predicted_but_not_measured(tuned, ranking):
  examples = _examples(_task(LABELS))
  without = [dataclasses.replace(e, label=None) for e in examples]
  scores, predictions = ranking(tuned[1], without)
  assert scores == {}
  assert [p.correct for p in predictions] == [None] * len(without)
  with pytest.raises(UserError, match='10 of 11'):
    ranking(tuned[1], [examples[0], *without[1:]])


def test_refusals(tuned, ranking):
  with pytest.raises(UserError, match='examples'):
    ranking(tuned[1], [])
  build = functools.partial(evaluator.Evaluator, tuned[0], VOCABULARY, max_target_length=WIDTH)
  with pytest.raises(UserError, match='labels'):
    build(_task(None), method='rank')
  with pytest.raises(UserError, match=facts('rank', 'constrained', 'generate')):
    build(_task(LABELS), method='guess')
  with pytest.raises(UserError, match='labels'):
    build(_task(None), method='constrained')
  with pytest.raises(UserError, match='rank'):
    build(_task(LABELS), method='constrained', normalize='tokens')
  with pytest.raises(UserError, match=facts('none', 'tokens')):
    build(_task(LABELS), normalize='words')
  with pytest.raises(UserError, match='batch size'):
    build(_task(LABELS), batch_size=0)


def test_predictions_are_json_lines(tmp_path):
  rows = [
    Prediction('é in', 'yes', 'no', False, {'yes': -2.0, 'no': -1.5}, 0.62),
    Prediction('two\nlines', '?', 'no', None, {'log_prob': -0.5}),
  ]
  path = tmp_path / 'new' / 'predictions.jsonl'
  predictions.write_predictions(path, rows)
  read = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  assert [Prediction(**row) for row in read] == rows
  assert set(read[0]) == {'input', 'target', 'prediction', 'correct', 'scores', 'confidence'}
  assert set(read[1]) == {'input', 'target', 'prediction', 'correct', 'scores'}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file'):
    predictions.write_predictions(tmp_path / 'file' / 'x.jsonl', [])


def test_progress_shows_count_and_rate_on_a_terminal_only():
  for terminal in (True, False):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with predictions.progress_bar(40, 'test', console) as advance:
      advance(10)
      advance(30)
    assert ('40/40' in out.getvalue()) == terminal


def test_constrained_answers_are_labels_as_if_each_example_were_alone(tuned):
  model, variables = tuned
  labels = ('yes', 'ye', 'not')  # one begins another
  task = dataclasses.replace(_task(LABELS), labels=labels)
  examples = _examples(task)
  options = {'max_target_length': WIDTH, 'batch_size': 4, 'method': 'constrained'}
  run = evaluator.Evaluator(model, VOCABULARY, task, **options)
  scores, predictions = run(variables, examples)
  rows = task.label_tokens(VOCABULARY, WIDTH)
  alone = jax.jit(functools.partial(constrained.choose_label, model, label_tokens=rows))
  for example, p in zip(examples, predictions, strict=True):
    (label,), (log_prob,), (allowed,) = alone(variables, _padded(example))
    assert p.prediction == labels[label]
    assert p.scores == {'log_prob': pytest.approx(float(log_prob), abs=3e-4)}
    assert p.confidence == pytest.approx(float(np.exp(allowed)), abs=1e-4)
    assert p.correct == (label == example.label)
  assert scores['accuracy'] == pytest.approx(100 * np.mean([p.correct for p in predictions]))


def test_the_confidence_of_a_ranked_label_is_its_share(tuned, ranking):
  _, predictions = ranking(tuned[1], _examples(_task(LABELS)))
  for p in predictions:
    odds = np.exp(list(p.scores.values()))
    assert p.confidence == pytest.approx(odds.max() / odds.sum())


def test_calibration_and_resamples_are_of_what_was_predicted(tuned, ranking):
  task = _task(LABELS)
  examples = _examples(task)
  scores, predictions = ranking(tuned[1], examples)
  odds = np.exp([list(p.scores.values()) for p in predictions])
  shares, targets = odds / odds.sum(-1, keepdims=True), [e.label for e in examples]
  (found,) = ranking.calibration(examples, predictions).values()
  assert found.brier == pytest.approx(calibration.brier(shares, targets))
  bins = calibration.reliability(
    [p.confidence for p in predictions], [p.correct for p in predictions]
  )
  assert [b.examples for b in found.bins] == [b.examples for b in bins]
  assert found.ece == pytest.approx(calibration.expected_calibration_error(bins))
  unknown = [dataclasses.replace(e, label=None) for e in examples]
  assert ranking.calibration(unknown, predictions) == {}
  drawn = ranking.distribution(examples, predictions, 200)
  assert list(drawn) == list(scores)
  assert drawn['accuracy'].min() < scores['accuracy'] < drawn['accuracy'].max()
  assert ranking.distribution(unknown, predictions, 200) == {}


def test_a_measure_of_the_tasks_own_is_resampled_if_it_is_quick(tuned, monkeypatch):
  model, variables = tuned
  task = _task(None, score=lambda e, t: {'long': 100.0 * np.mean([len(x.inputs_text) for x in e])})
  examples = _examples(task)
  run = evaluator.Evaluator(model, VOCABULARY, task, max_target_length=WIDTH)
  scores, predictions = run(variables, examples)
  drawn = run.distribution(examples, predictions, 50)['long']
  assert drawn.shape == (50,)
  assert drawn.min() < scores['long'] < drawn.max()
  monkeypatch.setattr(evaluator, 'PATIENCE', 0)
  with pytest.warns(UserWarning, match='toy'):
    assert run.distribution(examples, predictions, 50) == {}


def test_a_task_may_say_itself_what_is_right(tuned):
  model, variables = tuned
  right = lambda example, text: len(text) % 2 == len(example.inputs_text) % 2
  task = _task(None, right=right, metrics=('accuracy',))
  examples = _examples(task)
  examples[0] = dataclasses.replace(examples[0], fields={})
  run = evaluator.Evaluator(model, VOCABULARY, task, max_target_length=WIDTH)
  scores, predictions = run(variables, examples)
  hits = [right(e, p.prediction) for e, p in zip(examples, predictions, strict=True)]
  assert [p.correct for p in predictions] == hits
  assert scores == {'accuracy': pytest.approx(100 * np.mean(hits))}
  assert len(set(hits)) == 2
  assert [p.answers for p in predictions] == [None] + [['no', 'maybe']] * 10
  unknown = [dataclasses.replace(e, targets_text='<unk>') for e in examples]
  assert run(variables, unknown)[0] == {}


@pytest.fixture(scope='module')
def prompts(tuned):
  """Three prompts on one backbone."""
  model = PromptedT5(T5(tiny.config()), InputPrompt(length=2))
  backbone = jax.tree.map(jax.numpy.asarray, tuned[1]['params']['backbone'])
  rows = [jax.random.normal(jax.random.key(k), (2, 32)) for k in range(3)]
  variables = [
    variables_of({'backbone': backbone, 'prompt': {'encoder': {'prompt': r}}}, {}) for r in rows
  ]
  return model, variables


@pytest.mark.parametrize(('labels', 'at_once'), [(LABELS, None), (LABELS, 2), (None, 3)])
def test_prompts_are_evaluated_together_as_alone(prompts, labels, at_once):
  model, variables = prompts
  task = _task(labels)
  examples = _examples(task)
  if labels is None:
    examples = [dataclasses.replace(e, fields={}) for e in examples]
  options = {'max_target_length': WIDTH, 'batch_size': 4}
  alone = evaluator.Evaluator(model, VOCABULARY, task, **options)
  together = evaluator.Evaluator(model, VOCABULARY, task, **options, at_once=at_once)
  done = []
  found = together.each(variables, examples, done.append)
  assert sum(done) == len(examples)  # one pass for all
  answers = set()
  for v, (scores, given) in zip(variables, found, strict=True):
    want_scores, want = alone(v, examples)
    assert scores == want_scores == together.measure(examples, given)
    for one, other in zip(given, want, strict=True):
      assert (one.prediction, one.correct) == (other.prediction, other.correct)
      assert list(one.scores) == list(other.scores)
      np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=3e-4)
    answers.add(tuple(tuple(p.scores.values()) for p in given))
  assert len(answers) == 3


def test_prompts_on_different_backbones_are_not_evaluated_together(prompts):
  model, (first, second, _) = prompts
  run = evaluator.Evaluator(model, VOCABULARY, _task(LABELS), max_target_length=WIDTH)
  moved = jax.tree.map(lambda x: x + 0, second)
  with pytest.raises(ValueError, match='backbone'):
    run.each([first, moved], _examples(_task(LABELS)))
