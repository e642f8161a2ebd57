"""`prompt-jax pretrain`: trains a T5 on plain text, in two ordinary runs that train all weights."""

import functools
import hashlib
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from prompt_jax.batch import Batch
from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.backbone import Backbone, load_backbone, save_backbone
from prompt_jax.data.vocabulary import FILE_NAME, T5_EXTRA_IDS, Vocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.models.module import only_t5
from prompt_jax.models.t5.config import T5Config, with_dropout
from prompt_jax.models.t5.t5 import T5
from prompt_jax.pretraining.cooccurrence import token_vectors as vectors_of
from prompt_jax.pretraining.mimetic import mimetic
from prompt_jax.pretraining.published_scale import at_published_scale
from prompt_jax.pretraining.text_stream import PretrainingTask, TextStream, read_documents, tokenise
from prompt_jax.pretraining.train_vocabulary import train_vocabulary
from prompt_jax.pretraining.word_choice import content_words
from prompt_jax.prompted import PromptedT5
from prompt_jax.runs.record import Record, has_state
from prompt_jax.runtime.devices import choose_device, enable_compilation_cache
from prompt_jax.training import loop
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.optim import Update
from prompt_jax.training.settings import Settings

Tree = dict[str, Any]
# Of the tokens, as the validation data, but no more than this many batches.
HELD_OUT = 0.01
EVAL_BATCHES = 8


class Stage(NamedTuple):
  """One of the two training runs.

  Attributes:
    objective: the pretraining task: "span_corruption" or "prefix_lm".
    settings: how long, and how.
    optimizer: of all weights.
    choice_share: fraction of word-choice rows, see `pretraining.word_choice`.
  """

  objective: PretrainingTask
  settings: Settings
  optimizer: optax.GradientTransformation
  choice_share: float


class Start(NamedTuple):
  """The inputs of the first stage.

  Attributes:
    architecture: of the model.
    vocabulary: of the model and the text.
    params: of the model.
    tokens: int32[n] the text.
    fingerprint: which must be the same in a resumed run.
  """

  architecture: T5Config
  vocabulary: Vocabulary
  params: Tree
  tokens: np.ndarray
  fingerprint: str


def pretrain(
  *,
  architecture: T5Config,
  model: str | None,
  corpus: str | None,
  vocabulary: str | None,
  output: str | None,
  name: str | None,
  batch_size: int,
  input_length: int,
  target_length: int,
  stages: Sequence[Stage],
  loss: Loss,
  dropout: float,
  token_vectors: bool,
  seed: int,
  device: str,
  compilation_cache: str,
  stored_dtype: str,
  record: Record,
) -> None:
  """Trains the stages that have steps, each resumable, and writes a model folder.

  Args:
    architecture: of a new model.
    model: a model folder whose weights, architecture and vocabulary to begin with; None makes a new
      model.
    corpus: a text file, documents separated by empty lines.
    vocabulary: a SentencePiece model, or "bytes"; None trains one on the corpus.
    output: the model folder; the runs are kept in folders inside it.
    name: of the model; None for the folder's.
    batch_size: rows of a batch.
    input_length: tokens of an input, end of sequence included.
    target_length: tokens of a prefix-LM target.
    stages: one after the other; those without steps are left out.
    loss: what is minimised.
    dropout: dropout rate during training.
    token_vectors: initialize embeddings from co-occurrence counts, and attention to compare them.
    seed: of the weights and of the order of the text.
    device: see `runtime.devices`.
    compilation_cache: see `runtime.devices`.
    stored_dtype: of the weights on disk.
    record: all of these settings as text.
  """
  if not corpus or not output:
    raise UserError('Give a text and a folder for the model.', ('corpus', 'output'))
  console, folder = Console(), pathlib.Path(output)
  enable_compilation_cache(compilation_cache, choose_device(device))
  if model:
    _check_given(model, vocabulary, token_vectors, folder)
  elif token_vectors:
    _check_heads(architecture)
  base = load_backbone(model, 'float32') if model else None
  record.check(folder)
  first = _first(base, corpus, vocabulary, architecture, token_vectors, seed, folder, console)
  params = first.params
  content = _choices(first) if any(stage.choice_share for stage in stages) else None
  make = _streams(first, input_length, target_length, content, seed)
  metadata = {
    'base_model': name or folder.name,
    'fingerprint': first.fingerprint,
    'method': 'none',
    'width': first.architecture.emb_dim,
  }
  module = PromptedT5(T5(with_dropout(first.architecture, dropout)))
  for stage in stages:
    if stage.settings.steps:
      params = _trained(
        stage, module, params, make, first.tokens, batch_size, loss, folder, metadata, console,
        lambda: record.write(folder),
      )  # fmt: skip
  save_backbone(
    folder,
    name=name or folder.name,
    config=first.architecture,
    params=params,
    vocabulary=first.vocabulary,
    dtype=stored_dtype,
  )
  console.print(f'\nModel: {folder}', soft_wrap=True)
  console.print(
    f'Use it: prompt-jax train --model {shlex.quote(str(folder))} --data FILE', soft_wrap=True
  )


def _first(
  base: Backbone | None,
  corpus: str,
  vocabulary: str | None,
  architecture: T5Config,
  token_vectors: bool,
  seed: int,
  folder: pathlib.Path,
  console: Console,
) -> Start:
  """The given model, or a new one, and the text in its vocabulary."""
  documents = read_documents(corpus)
  if base is None:
    words = _vocabulary(vocabulary, documents, architecture, folder, console)
    tokens = tokenise(documents, words)
    params = _first_params(architecture, tokens, token_vectors, seed)
  else:
    architecture = only_t5(base.config, 'Pretraining')
    words, params = base.vocabulary, base.params
    tokens = tokenise(documents, words)
  console.print(f'{len(documents):,} documents, {len(tokens):,} tokens', highlight=False)
  # The initial weights of a new model may differ in their last bits from one process to the next,
  # as those of an iterative SVD do, so only a given model's are part of the fingerprint.
  given = words.sha256 + (base.fingerprint if base else '')
  fingerprint = hashlib.sha256(given.encode() + tokens.tobytes()).hexdigest()[:16]
  return Start(architecture, words, params, tokens, fingerprint)


def _trained(
  stage: Stage,
  module: PromptedT5,
  params: Tree,
  make: Callable[..., TextStream],
  tokens: np.ndarray,
  batch_size: int,
  loss: Loss,
  folder: pathlib.Path,
  metadata: dict[str, Any],
  console: Console,
  begun: Callable[[], None],
) -> Tree:
  """The parameters after a stage; `begun`: see `loop.train`."""
  console.rule(stage.objective)
  make = functools.partial(make, objective=stage.objective)
  cut = int(len(tokens) * (1 - HELD_OUT))
  held_out = {'held_out_loss': _held_out(make, tokens[cut:], batch_size, 0.0)}
  if stage.choice_share:
    held_out['choice_loss'] = _held_out(make, tokens[cut:], batch_size, 1.0)
  result = loop.train(
    objective=CrossEntropy(module, loss, module.backbone.cfg.dropout_rate > 0),
    update=Update(stage.optimizer),
    backbone=params,
    prompt={},
    constants={},
    stream=make(tokens[:cut], batch_size, choice_share=stage.choice_share),
    settings=stage.settings,
    folder=folder / 'runs' / stage.objective,
    metadata=metadata,
    evaluate=_held_out_loss(module, held_out),
    begun=begun,
    console=console,
  )
  on_disk.seal(result.folder)
  return result.trainable['backbone']


def _check_given(
  model: str, vocabulary: str | None, token_vectors: bool, folder: pathlib.Path
) -> None:
  """Refuses settings for a new model if a model is given, and its folder as the output."""
  for name, given in (('vocabulary', vocabulary), ('token_vectors', token_vectors)):
    if given:
      raise UserError(
        f'{name} is {given!r}, but the model {model!r} has its own. Leave out one of the two.',
        (name, 'model'),
      )
  if folder.resolve() == pathlib.Path(model).resolve():
    raise UserError(
      f'The model {model!r} would be overwritten by the one trained from it. Give another folder.',
      ('output',),
    )


def _check_heads(architecture: T5Config) -> None:
  joined = architecture.num_heads * architecture.head_dim
  if joined != architecture.emb_dim:
    raise UserError(
      f'token_vectors needs num_heads * head_dim = emb_dim, but {architecture.num_heads} * '
      f'{architecture.head_dim} is not {architecture.emb_dim}. Change the sizes, or leave it off.',
      ('token_vectors',),
    )


def _vocabulary(
  given: str | None,
  documents: list[str],
  architecture: T5Config,
  folder: pathlib.Path,
  console: Console,
) -> Vocabulary:
  """The vocabulary given, or one trained on the documents (once; a resumed run reads it)."""
  path = folder / FILE_NAME
  # Nothing is trained on it before a run state exists; until then it may be another text's.
  if given is None and not (path.is_file() and has_state(folder)):
    pieces = architecture.vocab_size - T5_EXTRA_IDS
    console.print(f'Training a vocabulary of {pieces} pieces', highlight=False)
    train_vocabulary(documents, pieces, path)
  words = load_vocabulary(given or path)
  if words.size > architecture.vocab_size:
    raise UserError(
      f'The vocabulary {given or path} has {words.size} ids, the architecture only '
      f'{architecture.vocab_size} rows. Set T5Config.vocab_size to {words.size} or more.'
    )
  return words


def _first_params(
  architecture: T5Config, tokens: np.ndarray, token_vectors: bool, seed: int
) -> Tree:
  """Of a new model."""
  ids = jnp.ones((1, 2), jnp.int32)
  batch = Batch(ids, ids, ids, jnp.ones((1, 2)))
  init = jax.jit(PromptedT5(T5(architecture)).init)
  params = init(jax.random.key(seed), batch)['params']['backbone']
  if token_vectors:
    params = mimetic(_with_vectors(params, tokens, architecture), seed)
  return params if architecture.tied_logits else at_published_scale(params)


def _choices(first: Start) -> np.ndarray:
  content = content_words(first.tokens, first.vocabulary)
  if not content.any():
    raise UserError(
      'This text has no words for word choice, which needs a SentencePiece '
      'vocabulary and more text. Leave choice_share at 0.',
      ('choice_share',),
    )
  return content


def _streams(
  first: Start,
  input_length: int,
  target_length: int,
  content: np.ndarray | None,
  seed: int,
) -> Callable[..., TextStream]:
  """Makes a stream of some tokens and a pretraining task."""
  words = first.vocabulary
  return functools.partial(
    TextStream,
    inputs=input_length,
    targets=target_length,
    sentinels=words.sentinels,
    eos=words.eos_id,
    content=content,
    seed=seed,
  )


def _with_vectors(params: Tree, tokens: np.ndarray, architecture: T5Config) -> Tree:
  """Embedding rows, and untied logits, from co-occurrence; unseen tokens keep their own."""
  vectors = vectors_of(tokens, architecture.vocab_size, architecture.emb_dim)
  seen = np.abs(vectors).sum(axis=1, keepdims=True) > 0
  embedding = np.where(seen, vectors, params['token_embedder']['embedding'])
  params = {**params, 'token_embedder': {'embedding': embedding}}
  if not architecture.tied_logits:
    kernel = embedding.T * architecture.emb_dim**-0.5
    params['decoder'] = {**params['decoder'], 'logits_dense': {'kernel': kernel}}
  return params


def _held_out(
  make: Callable[..., TextStream], tokens: np.ndarray, batch_size: int, choice_share: float
) -> list[Batch]:
  """The validation batches, the same every time; with fewer rows where the text is short."""
  stream = make(tokens, 1, choice_share=choice_share)
  stream.batch_size = min(batch_size, stream.rows)
  count = min(EVAL_BATCHES, stream.rows // stream.batch_size)
  return [stream.batch(i) for i in range(count)]


def _held_out_loss(model: PromptedT5, held_out: dict[str, list[Batch]]) -> loop.Evaluate:
  """Mean cross entropy in nats a token, by name."""

  @jax.jit
  def sums(params: Tree, batch: Batch) -> tuple[jax.Array, jax.Array]:
    logits, _ = model.apply({'params': params}, batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.decoder_target_tokens)
    weights = batch.decoder_loss_weights
    return jnp.sum(losses * weights), jnp.sum(weights)

  def evaluate(params: Tree) -> dict[str, float]:
    metrics = {}
    for name, batches in held_out.items():
      total = np.sum([jax.device_get(sums(params, b)) for b in batches], axis=0)
      metrics[name] = float(total[0] / total[1])
    return metrics

  return evaluate
