"""A whole run of `train` on the toy model, here or in a process of its own."""

import os
import resource
import sys

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from toy_model import H, ToyModel, U, V, toy_batch, toy_variables

from prompt_jax.checkpoints.backbone import fingerprint
from prompt_jax.data.example import Example
from prompt_jax.data.packing import PackedStream, Slots
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.sharding import placement
from prompt_jax.training import losses, optim
from prompt_jax.training.loop import train, train_members
from prompt_jax.training.losses import Loss
from prompt_jax.training.members import Member
from prompt_jax.training.objective import CrossEntropy, merge
from prompt_jax.training.settings import Settings
from tests.several import print_to


class ToyStream:
  """Batch n is a function of n."""

  def __init__(self, rows=8, end=None, first=0):
    self.position = {'next': first}
    self.taken = 0
    self._rows, self._end = rows, end

  def restore(self, position):
    self.position = dict(position)

  def upcoming_shapes(self, count):
    return []

  def __iter__(self):
    while self._end is None or self.position['next'] < self._end:
      batch = toy_batch(self._rows, seed=self.position['next'])
      self.position['next'] += 1
      self.taken += 1
      yield batch


def toy_evaluate(model, frozen, constants, rows=64):
  batch = jax.tree.map(jnp.asarray, toy_batch(rows, seed=10**6))

  @jax.jit
  def values(trainable):
    logits, _ = model.apply({'params': merge(trainable, frozen), 'constants': constants}, batch)
    loss, sums = losses.cross_entropy(
      logits, batch.decoder_target_tokens, batch.decoder_loss_weights, z_loss=0.0
    )
    return {'loss': loss, 'accuracy': sums['correct'] / sums['tokens']}

  return lambda trainable: {k: float(v) for k, v in values(trainable).items()}


def toy_train(
  folder,
  seed=0,
  backbone_seed=0,
  variables=None,
  tx=None,
  objective=None,
  update=None,
  stream=None,
  evaluate=None,
  console=None,
  placement=None,
  **settings,
):
  variables = variables or toy_variables(backbone_seed)
  params = variables['params']
  model = ToyModel()
  if evaluate is None and 'patterns' not in settings:
    evaluate = toy_evaluate(model, {'backbone': params['backbone']}, variables['constants'])
  settings = Settings(**{'steps': 20, 'seed': seed, 'dropout': True, **settings})
  return train(
    objective=objective or CrossEntropy(model, Loss(), settings.dropout),
    update=update or optim.Update(tx or optim.adafactor(0.3)),
    backbone=params['backbone'],
    prompt=params['prompt'],
    constants=variables['constants']['prompt'],
    stream=stream or ToyStream(),
    settings=settings,
    folder=folder,
    metadata={
      'base_model': f'toy-{backbone_seed}',
      'fingerprint': fingerprint(params['backbone']),
      'method': 'Prompt',
      'width': H,
    },
    evaluate=evaluate,
    console=console,
    placement=placement,
  )


def toy_packed_stream():
  """Rows of two examples or three, of two tasks as a mixture has them."""
  rng = np.random.default_rng(0)
  ids = lambda n: rng.integers(1, V, n).astype(np.int32)
  sizes = rng.integers(1, 7, 40)
  examples = [
    Example(ids(n), ids(1 + n % 2), '', '', None, {}, 'ab'[i % 2]) for i, n in enumerate(sizes)
  ]
  # The toy's logits are of U positions.
  stream = PackedStream(
    examples, 6, row_length=12, encoder=Slots(1), multiple=U, quota={'a': 10, 'b': 30}
  )
  assert stream.shape.targets == U
  return stream


def toy_train_packed(folder, **settings):
  return toy_train(folder, stream=toy_packed_stream(), **settings)


def toy_members(rates=(0.3, 0.1, 1.0), streams=None, metric='loss', warm_start=None):
  """Prompts with first values, seeds, data and learning rates of their own."""
  backbone = toy_variables()['params']['backbone']
  members = []
  for k, rate in enumerate(rates):
    variables = toy_variables(k)
    members.append(
      Member(
        name=f'seed_{k}',
        objective=CrossEntropy(ToyModel(), Loss(), dropout=True),
        update=optim.Update(optim.adafactor(rate)),
        prompt=variables['params']['prompt'],
        constants=variables['constants']['prompt'],
        stream=streams[k] if streams else ToyStream(first=1000 * k),
        metadata={
          'base_model': 'toy-0',
          'fingerprint': fingerprint(backbone),
          'method': 'Prompt',
          'width': H,
        },
        seed=k,
        metric=metric,
        warm_start=warm_start,
      )
    )
  return members


def toy_train_members(
  folder,
  members=None,
  evaluate=None,
  rungs=(),
  at_once=None,
  console=None,
  placement=None,
  **settings,
):
  members = members or toy_members()
  variables = toy_variables()
  backbone = variables['params']['backbone']
  if evaluate is None:
    one = toy_evaluate(ToyModel(), {'backbone': backbone}, variables['constants'])
    evaluate = lambda numbers, trainables: [one(trainable) for trainable in trainables]
  return train_members(
    members=members,
    backbone=backbone,
    settings=Settings(**{'steps': 20, 'dropout': True, **settings}),
    folder=folder,
    evaluate=evaluate,
    rungs=rungs,
    at_once=at_once,
    console=console,
    placement=placement,
  )


def run_one_of_several(log, where, folder, options, environment, run=toy_train):
  """Target of a process that computes with others, as `main` would."""
  print_to(log)
  os.environ.update(environment)
  try:
    with processes.distributed(*where):
      console = Console(quiet=not processes.is_first())
      # A process as a slice of its own: CPUs do not tell.
      place = placement.make(None, 'data', jax.devices(), jax.process_count())
      run(folder, console=console, placement=place, **options)
  except UserError as e:
    print(f'UserError: {e}', file=sys.stderr)
    sys.exit(2)


def run_process(folder, log, options, file_limit=None, run=toy_train):
  """Target of a process that a test may kill: a run as `main` would make it, printing to `log`."""
  print_to(log)
  if file_limit is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
  try:
    run(folder, **options)
  except UserError as e:
    print(f'UserError: {e}', file=sys.stderr)
    sys.exit(2)
