"""A model with prompts in transformers and CTranslate2: what `infer` answers, on every shape."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

import prompt_jax as pj
from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.data.example import encode
from prompt_jax.errors import UserError
from prompt_jax.export import check, ctranslate2_model, engines, hf_prompts
from prompt_jax.export.asking import Asked
from prompt_jax.export.convert import convert
from prompt_jax.export.prompt import export_prompt
from prompt_jax.inference.decode import decode
from prompt_jax.injections import PLACEMENTS
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from tests.export import shapes
from tests.shared import facts

ctranslate2 = pytest.importorskip('ctranslate2')
TEXTS = ('a warm and funny film', 'no', 'Was it a car or a cat I saw?')


def manifest(folder):
  return json.loads((folder / 'prompts.json').read_text())


def greedy(file: str, texts, length: int = 8):
  """Tokens up to the end of the sequence and their log-probability, by the prompt itself."""
  tuned = pj.load(file).ready
  rows = [encode(text, tuned.backbone.vocabulary, 64) for text in texts]
  found = []
  for row in rows:
    done = decode(tuned.model, tuned.variables, jnp.asarray(row)[None], length, first_best)
    tokens = done.tokens[0].tolist()
    found.append((tokens[: tokens.index(1) + 1] if 1 in tokens else tokens, done.log_probs[0]))
  return found


def first_best(logits, position):
  del position
  return jnp.argmax(logits, -1)


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
@pytest.mark.parametrize('shape', ['t5_1_0', 'gated_relu', 'mt5', 'byt5', 'umt5'])
def test_every_shape_answers_like_infer(shape, to, tmp_path):
  base = shapes.model(shape, tmp_path)
  a = shapes.prompt(tmp_path / 'a.safetensors', base, 4, labels=['yes', 'no'])
  b = shapes.prompt(tmp_path / 'b.safetensors', base, 1, seed=1)
  if (shape, to) == ('umt5', 'hf') and transformers.__version__ < '5.24':
    # It scales the logits of every umT5, see docs/convert.md: seen, refused, removed.
    with pytest.raises(UserError, match=facts('transformers', transformers.__version__)):
      export_prompt([a, b], tmp_path / to, to)
    assert not list(tmp_path.glob('*hf*'))
    return
  done = export_prompt([a, b], tmp_path / to, to)
  about = manifest(done.path)
  assert done.prompts == ('a', 'b')
  assert about['check']['answers'] == 1
  assert about['check']['difference'] < 1e-4
  rows = about['vocabulary']['rows']
  assert [p['ids'] for p in about['prompts']] == [list(range(rows, rows + 4)), [rows + 4]]


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
def test_the_manifest(to, pair, exported):
  about = manifest(exported(to))
  backbone = load_backbone(pair.base)
  assert about['fingerprint'] == backbone.fingerprint
  assert about['vocabulary']['rows'] == backbone.config.vocab_size
  first, second = about['prompts']
  assert (first['name'], first['labels'], first['rows']) == ('sst2', ['negative', 'positive'], 5)
  assert first['label_ids'][0] == [*backbone.vocabulary.encode('negative'), 1]
  assert (second['name'], second['labels'], second['target_length']) == ('trec', None, 8)
  assert second['placement'] == 'before'
  assert not set(first['tokens']) & set(second['tokens'])
  assert about['versions']['prompt_jax'] == pj.__version__


def opened(folder):
  """As a stranger opens it."""
  return (
    transformers.AutoTokenizer.from_pretrained(folder),
    transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval(),
  )


def test_transformers_answers_typed_text_of_two_prompts_in_a_batch(pair, exported):
  tokenizer, model = opened(exported('hf'))
  typed = [f'<{name}> {text}' for name in ('sst2', 'trec') for text in TEXTS]
  batch = tokenizer(typed, padding=True, return_tensors='pt')
  assert set(batch) == {'input_ids', 'attention_mask'}  # what the model takes
  found = model.generate(**batch)[:, 1:].tolist()
  expected = [tokens for file in pair.files for tokens, _ in greedy(file, TEXTS)]
  assert [row[: len(e)] for row, e in zip(found, expected, strict=True)] == expected
  assert all(len(row) <= 8 for row in found)  # of the longest target


def test_ctranslate2_answers_two_prompts_in_a_batch(pair, exported):
  folder, words = exported('ctranslate2'), load_backbone(pair.base).vocabulary
  names = json.loads((folder / 'source_vocabulary.json').read_text())
  target = json.loads((folder / 'target_vocabulary.json').read_text())
  sources = [
    [names[i] for i in (*prompt['ids'], *words.encode(text), 1)]
    for prompt in manifest(folder)['prompts']
    for text in TEXTS
  ]
  model = ctranslate2.Translator(str(folder), intra_threads=1)
  found = model.translate_batch(
    sources, beam_size=1, min_decoding_length=0, max_decoding_length=8, length_penalty=0,
    return_scores=True, return_end_token=True,
  )  # fmt: skip
  expected = [answer for file in pair.files for answer in greedy(file, TEXTS)]
  for result, (tokens, score) in zip(found, expected, strict=True):
    assert [target.index(t) for t in result.hypotheses[0]] == tokens
    assert abs(result.scores[0] - score) < 1e-4


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
def test_labels_and_their_probabilities(to, pair, exported):
  folder = exported(to)
  about = manifest(folder)
  prompt = about['prompts'][0]
  ids = [[*prompt['ids'], *load_backbone(pair.base).vocabulary.encode(t), 1] for t in TEXTS]
  engine = engines.opened(to, folder, about['vocabulary']['rows'], 1)
  both = [(Asked('sst2', source), label) for source in ids for label in prompt['label_ids']]
  values = [float(x.sum()) for x in engine.log_probs(*zip(*both, strict=True))]
  values = np.reshape(values, (len(ids), 2))
  for row, answer in zip(values, pj.load(pair.sst2).predict(list(TEXTS)), strict=True):
    assert prompt['labels'][int(np.argmax(row))] == answer.prediction
    share = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    assert abs(share.max() - answer.probability) < 1e-4


def test_beams_and_samples_of_transformers_are_those_of_the_model_alone(tmp_path):
  """With tied logits, where the rows of a prompt are rows of the output too."""
  base = shapes.model('t5_1_0', tmp_path)
  file = shapes.prompt(tmp_path / 'p.safetensors', base, 6)
  folder = export_prompt(file, tmp_path / 'hf', 'hf').path
  convert(
    base, str(tmp_path / 'plain'), to='hf', vocabulary=None, architecture=None, dtype=None,
    verify='values', device='cpu',
  )  # fmt: skip
  tokenizer, model = opened(folder)
  plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / 'plain').eval()
  batch = tokenizer([f'<p> {TEXTS[0]}'], return_tensors='pt')
  embeds = model.shared(batch.input_ids)
  beams = {'num_beams': 4, 'num_return_sequences': 4, 'max_new_tokens': 6, 'do_sample': False}
  ask = lambda model, **inputs: model.generate(
    **inputs, **beams, return_dict_in_generate=True, output_scores=True
  )
  got = ask(model, **batch)
  wanted = ask(plain, inputs_embeds=embeds, attention_mask=batch.attention_mask)
  assert got.sequences.tolist() == wanted.sequences.tolist()
  assert torch.allclose(got.sequences_scores, wanted.sequences_scores, atol=1e-5)
  one = model.generate(
    **batch, do_sample=True, top_k=0, max_new_tokens=1, output_scores=True,
    return_dict_in_generate=True,
  )  # fmt: skip
  rows = plain.config.vocab_size
  logits = plain(
    inputs_embeds=embeds, attention_mask=batch.attention_mask, decoder_input_ids=torch.tensor([[0]])
  ).logits[0, 0]
  assert torch.allclose(one.scores[0][0, :rows].exp(), logits.softmax(-1), atol=1e-6)
  assert one.scores[0][0, rows:].exp().max() == 0
  assert len(one.scores[0][0, rows:]) == 6


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
def test_an_empty_answer(to, tmp_path, pair):
  """The end of the sequence is by far the most probable token."""
  base = shapes.model('t5_1_1', tmp_path, shapes.ending)
  files = [shapes.prompt(tmp_path / f'{i}.safetensors', base, 3, seed=i) for i in range(8)]
  texts = [*check.SAMPLES]
  empty = [f for f in files if any(tokens == [1] for tokens, _ in greedy(f, texts[:1]))]
  assert empty
  folder = export_prompt(empty[:1], tmp_path / to, to).path
  if to == 'hf':
    tokenizer, model = opened(folder)
    word = manifest(folder)['prompts'][0]['word']
    found = model.generate(**tokenizer([f'{word} {texts[0]}'], return_tensors='pt'))
    assert tokenizer.decode(found[0], skip_special_tokens=True) == ''
    return
  engine = engines.opened(to, folder, manifest(folder)['vocabulary']['rows'], 1)
  source = [
    *manifest(folder)['prompts'][0]['ids'],
    *load_backbone(base).vocabulary.encode(texts[0]),
  ]
  assert engine.greedy([Asked('', [*source, 1])], 8) == [[1]]


@pytest.mark.parametrize('placement', PLACEMENTS)
def test_places_of_the_rows(placement, pair, tmp_path):
  method = InputPrompt(length=3, placement=placement)
  file = shapes.prompt(tmp_path / 'p.safetensors', pair.base, 3, method=method)
  done = export_prompt(file, tmp_path / 'ct2', 'ctranslate2')
  assert manifest(done.path)['prompts'][0]['placement'] == placement
  if placement in hf_prompts.PATTERNS:
    assert export_prompt(file, tmp_path / 'hf', 'hf').prompts == ('p',)
    return
  with pytest.raises(UserError, match=facts(placement, 'ctranslate2')):
    export_prompt(file, tmp_path / 'hf', 'hf')
  assert not (tmp_path / 'hf').exists()


def wrong_rows(monkeypatch):
  """Exports that lose the last row of a prompt, after everything was checked."""
  for module in (hf_prompts, ctranslate2_model):
    save = module.save

    def worse(folder, model, prompts, *more, save=save):
      lost = [dataclasses.replace(p, rows=p.rows * (p.rows != p.rows[-1])) for p in prompts]
      save(folder, model, lost, *more)

    monkeypatch.setattr(module, 'save', worse)


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
def test_an_export_that_answers_otherwise_is_refused_and_removed(to, pair, tmp_path, monkeypatch):
  wrong_rows(monkeypatch)
  with pytest.raises(UserError, match='sst2'):
    export_prompt(pair.files, tmp_path / 'out', to)
  assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cuts_otherwise_is_refused(pair, tmp_path, monkeypatch):
  monkeypatch.setattr(hf_prompts, 'PATTERNS', {'before': '^not {}'})
  with pytest.raises(UserError, match=facts('reads the ids', 'sst2')):
    export_prompt(pair.files, tmp_path / 'out', 'hf')
  assert not list(tmp_path.iterdir())


def test_an_absent_engine_is_told(pair, tmp_path, monkeypatch, capsys):
  from rich.console import Console

  monkeypatch.setitem(engines.NEEDS, 'hf', ('transformers', 'no_such_torch'))
  export_prompt(pair.files, tmp_path / 'out', 'hf', console=Console())
  out = capsys.readouterr().out
  assert 'no_such_torch' in out
  assert out.count('\n') == 1
  assert manifest(tmp_path / 'out')['check'] is None


def test_other_numbers_print_how_many_answers_agree(pair, tmp_path, monkeypatch, capsys):
  from rich.console import Console

  export_prompt(
    pair.files, tmp_path / 'int8', 'ctranslate2', quantize='int8', least_agreement=0.0,
    samples=list(TEXTS), console=Console(),
  )  # fmt: skip
  about = manifest(tmp_path / 'int8')
  assert about['quantize'] == 'int8'
  assert f'{about["check"]["answers"]:.1%}' in capsys.readouterr().out
  assert about['check']['texts'] == 3
  weights = (tmp_path / 'int8' / 'model.bin').stat().st_size
  agreement = check.Agreement('it', 3, 2, 0.5, 1.0)
  monkeypatch.setattr(check, 'compare', lambda *args: agreement)
  with pytest.raises(UserError, match=facts('50.0%', '90.0%')):
    export_prompt(pair.files, tmp_path / 'worse', 'ctranslate2', quantize='int8')
  assert not (tmp_path / 'worse').exists()
  export_prompt(pair.files, tmp_path / 'whole', 'ctranslate2')
  assert weights < 0.4 * (tmp_path / 'whole' / 'model.bin').stat().st_size


def test_rows_keep_their_bits(pair, exported):
  arrays = safetensors.numpy.load_file(exported('hf') / 'model.safetensors')
  rows = load_backbone(pair.base).config.vocab_size
  own = safetensors.numpy.load_file(pair.sst2)['params/encoder/prompt']
  assert arrays['shared.weight'][rows : rows + 5].tobytes() == own.tobytes()
