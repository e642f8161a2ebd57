"""A batch whose rows name their prompts equals each prompt by itself."""

import functools

import jax
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.inference import decode
from prompt_jax.inference.score import rank
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.ia3 import IA3
from prompt_jax.prompts.methods.inside.lora import LoRA
from prompt_jax.prompts.methods.inside.mam import MAM
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Plain
from prompt_jax.serving.bank import Bank
from prompt_jax.serving.rows import Row, Settings
from prompt_jax.serving.tuned_prompts import TunedPrompts
from prompt_jax.tuned_model import TunedModel
from tests.serving.conftest import MANY, YES_NO, Everywhere
from tests.shared import facts

# Of one kind and of unequal length, by the name of the kind.
KINDS = {
  'before': lambda n: InputPrompt(length=n),
  'after_bos': lambda n: InputPrompt(length=n, placement='after_bos'),
  'before_eos': lambda n: InputPrompt(length=n, placement='before_eos'),
  'after_eos': lambda n: InputPrompt(length=n, placement='after_eos'),
  'unseen': lambda n: InputPrompt(length=n, sees_input=False),
  'unseen_after_bos': lambda n: InputPrompt(length=n, sees_input=False, placement='after_bos'),
  'read_only': lambda n: InputPrompt(length=n, seen_by='none'),
  'both': lambda n: InputPrompt(length=n, decoder=True),
  'decoder_after_bos': lambda n: InputPrompt(
    length=n, encoder=False, decoder=True, decoder_placement='after_bos'
  ),
  'prefix': lambda n: PrefixTuning(length=n, table=Plain()),
  'prefix_shifted': lambda n: PrefixTuning(length=n, kv_bias='shifted'),
  'prefix_cross': lambda n: PrefixTuning(length=n, encoder=False, decoder=False),
  'deep': lambda n: DeepPrompt(length=n),
  'deep_add': lambda n: DeepPrompt(length=n, mode='add', decoder=True),
  'deep_unseen': lambda n: DeepPrompt(length=n, sees_input=False, placement='before_eos'),
  'lora': lambda n: LoRA(rank=2, points=('query', 'key', 'value', 'attention')),
  'ia3': lambda n: IA3(('query', 'heads', 'key', 'value', 'mlp_hidden', 'mlp')),
  'mam': lambda n: MAM(length=n, size=4, table=Plain()),
  'everywhere': lambda n: Everywhere(length=n),
}
TEXTS = ['ab', 'a text of some length', '', 'bab', 'aaaa bbbb', 'b', 'other words', '0123456789']
PLAN = [0, 1, 2, 1, 0, 2, 2, 0]  # the prompt of each text


def prompts_of(kind, tuned):
  """{name: prompt} of unequal lengths; the first two have labels, unlike ones."""
  labels = (YES_NO, MANY, None)
  return {
    f'p{i}': tuned(KINDS[kind](n), i, labels[i], targets=(12, 9, 5)[i])
    for i, n in enumerate((2, 9, 5))
  }


@pytest.fixture(scope='module', params=['before', 'everywhere', 'deep_unseen'])
def three(request, tuned):
  return prompts_of(request.param, tuned)


def bank_of(prompts) -> TunedPrompts:
  bank = Bank(next(iter(prompts.values())).backbone)
  for name, tuned in prompts.items():
    bank.add(name, tuned)
  return TunedPrompts(bank)


def names(prompts, plan=PLAN):
  return [list(prompts)[i] for i in plan]


def alone(prompts, call, plan=PLAN):
  """The answers of each prompt by itself, in the order of the texts."""
  found = {}
  for k, tuned in enumerate(prompts.values()):
    own = [i for i, p in enumerate(plan) if p == k]
    if own:
      found |= dict(zip(own, call(TunedModel(tuned), [TEXTS[i] for i in own]), strict=True))
  return [found[i] for i in range(len(plan))]


def test_answers_are_those_of_each_prompt_by_itself(three):
  """Labels of two sets, and text, in one call."""
  found = bank_of(three).predict(TEXTS, names(three), batch_size=8)
  expected = alone(three, lambda one, texts: one.predict(texts))
  assert [a.prediction for a in found] == [a.prediction for a in expected]
  assert [a.text for a in found] == TEXTS
  for a, b in zip(found, expected, strict=True):
    assert (a.probability is None) == (b.probability is None)
    assert a.probability is None or abs(a.probability - b.probability) < 1e-5


@pytest.mark.parametrize('kind', KINDS)
def test_scores_of_labels_are_those_of_each_prompt(kind, tuned):
  """In nats, of all labels; rows of two label sets and lengths are one batch."""
  prompts = prompts_of(kind, tuned)
  bank = bank_of(prompts)
  tokens = [np.asarray([*map(ord, text), 1], np.int32) for text in ('a text', 'more of it', 'b')]
  of = [('p0', 0), ('p1', 0), ('p1', 1), ('p0', 2)]
  found = bank.programs([Row(name, tokens[i]) for name, i in of], Settings('rank'))
  for name, one in list(prompts.items())[:2]:
    labels = bank.bank[name].label_tokens
    call = jax.jit(functools.partial(rank, one.model, label_tokens=labels))
    padded = np.zeros((3, 11), np.int32)
    for row, own in zip(padded, tokens, strict=True):
      row[: len(own)] = own
    expected = call(one.variables, padded)
    for (other, i), answer in zip(of, found, strict=True):
      if other == name:
        np.testing.assert_allclose(answer.scores, expected[i], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize('settings', [{}, {'beams': 3}], ids=str)
def test_written_text_is_that_of_each_prompt(three, settings):
  found = bank_of(three).generate(TEXTS, names(three), batch_size=8, **settings)
  assert found == alone(three, lambda one, texts: one.generate(texts, **settings))
  assert len(set(found)) > 2  # the prompts matter


def test_labels_by_constrained_decoding_are_those_of_each_prompt(three):
  plan = [p % 2 for p in PLAN]
  found = bank_of(three).predict(TEXTS, names(three, plan), method='constrained')
  expected = alone(three, lambda one, texts: one.predict(texts, method='constrained'), plan)
  assert [a.prediction for a in found] == [a.prediction for a in expected]
  np.testing.assert_allclose(
    [a.probability for a in found], [a.probability for a in expected], atol=1e-5
  )


@pytest.fixture(scope='module')
def rows(tuned):
  return {f'p{i}': tuned(InputPrompt(length=n), i, YES_NO) for i, n in enumerate((3, 8, 5))}


def test_samples_depend_on_the_text_and_not_on_its_batch(rows):
  bank = bank_of(rows)
  ask = lambda texts, plan, **more: bank.generate(
    texts, names(rows, plan), temperature=1.0, seed=3, **more
  )
  whole = ask(TEXTS, PLAN)
  assert ask(TEXTS, PLAN, batch_size=3) == whole
  assert ask(TEXTS[:4], PLAN[:4]) == whole[:4]
  assert bank.generate(TEXTS, names(rows), temperature=1.0, seed=4) != whole
  greedy = bank.generate(TEXTS, names(rows))
  assert bank.generate(TEXTS, names(rows), temperature=1e-5) == greedy
  assert bank.generate(TEXTS, names(rows), temperature=5.0, top_k=1) == greedy
  assert bank.generate(TEXTS, names(rows), temperature=5.0, top_p=1e-6) == greedy


@pytest.mark.parametrize(('top_k', 'top_p'), [(0, 0.0), (3, 0.0), (0, 0.4)])
def test_rows_are_drawn_as_one_distribution_is(top_k, top_p):
  """Each row's draw is that of `sample` with the row's own key."""
  logits = 2 * jax.random.normal(jax.random.key(0), (5, 40))
  keys = jax.random.split(jax.random.key(1), 5)
  full = lambda x, dtype: np.full(5, x, dtype)
  how = decode.RowSampling(
    full(0.7, np.float32), full(top_k, np.int32), full(top_p, np.float32), keys
  )
  found = decode.choose_by_row(how)(logits, jax.numpy.int32(2))
  for row, key, drawn in zip(logits, keys, found, strict=True):
    kept = row / 0.7
    kept = decode.keep_top_k(kept, top_k) if top_k else kept
    kept = decode.keep_top_p(kept, top_p) if top_p else kept
    assert drawn == jax.random.categorical(jax.random.fold_in(key, 2), kept)


def test_a_limit_of_its_own_for_each_row(rows):
  bank, (name, one) = bank_of(rows), next(iter(rows.items()))
  tokens = np.asarray([70, 71, 1], np.int32)
  for beams in (1, 3):
    limits = (3, 12, 7)
    found = bank.programs([Row(name, tokens, n) for n in limits], Settings('generate', beams=beams))
    for n, answer in zip(limits, found, strict=True):
      expected = TunedModel(one)
      text = bank.bank.backbone.vocabulary.decode(tokens[:-1])
      assert expected.generate([text], beams=beams, max_new_tokens=n) == [
        bank.answer('', answer).prediction
      ]
      assert not answer.tokens[n:].any()


def test_what_takes_a_spare_place_compiles_nothing(tuned):
  """Also longer and shorter prompts, as long as there is room."""
  bank = bank_of({f'p{i}': tuned(InputPrompt(length=n), i, YES_NO) for i, n in enumerate((3, 8))})
  ask = lambda *of: [
    a.prediction for a in bank.predict(TEXTS[:4], [of[i % len(of)] for i in range(4)])
  ]
  before = ask('p0', 'p1')
  news = {name: tuned(InputPrompt(length=n), n, YES_NO) for name, n in (('new', 8), ('p1', 3))}
  expected = {name: TunedModel(one).predict(TEXTS[:4]) for name, one in news.items()}
  one = TunedModel(tuned(InputPrompt(length=3), 0, YES_NO)).predict(TEXTS[:4])
  with counted() as compiled:
    for name, prompt in news.items():
      bank.bank.add(name, prompt)
    assert bank.predict(TEXTS[:4], 'new') == _near(expected['new'])
    assert bank.predict(TEXTS[:4], 'p1') == _near(expected['p1'])
    bank.remove('new')
    bank.bank.add('again', news['new'])
    assert bank.predict(TEXTS[:4], 'again') == _near(expected['new'])
    assert bank.predict(TEXTS[:4], 'p0') == _near(one)
  assert compiled == []
  with counted() as compiled:
    bank.predict(['a text of another size'], 'p0')
  assert compiled
  assert bank.names == ('p0', 'p1', 'again')
  assert before != ask('p0', 'again') or before == ask('p0', 'p0')


class _near(list):
  """Equal to answers with these words, whose probabilities are within 1e-5."""

  def __eq__(self, other):
    pairs = list(zip(self, other, strict=True))
    return all(
      a.prediction == b.prediction and abs(a.probability - b.probability) < 1e-5 for a, b in pairs
    )

  __hash__ = None


class counted:
  """The names of the events of compilation while it is entered."""

  def __enter__(self):
    self.found = []
    self._on = True

    def note(event, seconds, **_):
      if self._on and 'backend_compile' in event:
        self.found.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    return self.found

  def __exit__(self, *_):
    self._on = False


def test_more_prompts_than_places_and_longer_ones_than_room(tuned):
  """The stack grows, and every answer stays."""
  prompts = {f'p{i}': tuned(InputPrompt(length=1 + 3 * i), i, YES_NO) for i in range(5)}
  bank = Bank(prompts['p0'].backbone, spare=0)
  for name, one in prompts.items():
    bank.add(name, one)
  found = TunedPrompts(bank).predict(TEXTS[:5], list(prompts))
  expected = [
    TunedModel(one).predict([text])[0]
    for one, text in zip(prompts.values(), TEXTS[:5], strict=True)
  ]
  assert found == _near(expected)
  (group,) = {id(bank[name].group): bank[name].group for name in prompts}.values()
  assert (group.size, group.rooms) == (8, {('encoder', 'prefix'): 16})


def test_a_prompt_that_is_taken_out_is_unknown(rows):
  bank = bank_of(rows)
  bank.remove('p1')
  with pytest.raises(UserError, match=facts('p1', 'p0', 'p2')):
    bank.predict(['a'], 'p1')
  with pytest.raises(UserError, match='p1'):
    bank.remove('p1')
  assert bank.programs([Row('p1', np.asarray([1], np.int32))], Settings('rank')) == [None]


@pytest.mark.parametrize(
  ('method', 'why'),
  [(ADePT(length=2, rank=2), 'embeds'), (TaskPrompts(tasks=2, length=2), 'task_prompts')],
)
def test_methods_that_cannot_be_stacked_are_refused(tuned, rows, method, why):
  bank = bank_of(rows)
  with pytest.raises(UserError, match=facts("'x'", type(method).__name__, why)) as caught:
    bank.bank.add('x', tuned(method))
  assert '\n' not in str(caught.value)
  assert bank.names == tuple(rows)


def test_what_is_asked_for_wrongly(rows, tuned):
  bank = bank_of({**rows, 'free': tuned(InputPrompt(length=2))})
  ask = bank.predict
  for call, said in (
    (lambda: ask(['a', 'b'], ['p0']), ('2', '1')),
    (lambda: ask('a', 'p0'), ('texts',)),
    (lambda: ask([], 'p0'), ('texts',)),
    (lambda: ask(['a'], 'p9'), ('p9', 'p0')),
    (lambda: ask(['a'], 'free', method='rank'), ('free', 'labels')),
    (lambda: ask(['a'], 'free', normalize='tokens'), ('normalize',)),
    (lambda: ask(['a'], 'p0', method='no'), ('no', 'rank')),
    (lambda: ask(['a'], 'p0', batch_size=0), ('0',)),
    (lambda: bank.generate(['a'], 'p0', beams=2, temperature=1.0), ('beams', 'temperature')),
    (lambda: bank.generate(['a'], 'p0', temperature=1.0, top_k=2, top_p=0.5), ('top_k', 'top_p')),
  ):
    with pytest.raises(UserError, match=facts(*said)):
      call()
