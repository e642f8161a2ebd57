"""Breaks a prompt-tuning step into encoder, decoder, loss, optimizer and input.

python scripts/step_breakdown.py --model embedded

Four programs are timed in turn, each the part of the step up to some point with its backward pass
to the prompt: the encoder; encoder and decoder, to logits; both and the loss; the whole step. A
part is the difference of two medians. They are programs of their own rather than a trace, because
a compiler fuses operations of different parts, and because this is the same on every device;
`prompt-jax train --profile` writes the trace. What the compiler does across the borders counts for
the later part. Loss and optimizer are small, so that noise may make them negative.

"Input" is what the host does for a batch: choosing examples, padding, moving to the device. In a
run a thread does it beside the step (`training.streams`). Batches are those of the examples of
`--task` in the width that most of them have, tokenised with the embedded vocabulary.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench_sides import our_model, pin

PARTS = ('encoder', 'decoder', 'loss', 'optimizer')


class Seconds(NamedTuple):
  """By the clock, and of all threads of this process: the latter says more on a busy machine."""

  wall: float
  cpu: float


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--model', choices=('embedded', 'small'), default='embedded',
                      help='the one in the package, or random weights of T5 1.1 small')  # fmt: skip
  parser.add_argument('--task', default='docstrings_iid', help='whose lengths the batches have')
  parser.add_argument('--batch', type=int, default=32, help='examples a step')
  parser.add_argument('--prompt', type=int, default=100, help='prompt rows')
  parser.add_argument('--apart', action='store_true', help='a prompt that does not see the input')
  parser.add_argument('--steps', type=int, default=10, help='timed runs of each program')
  parser.add_argument('--threads', type=int, default=0, help='CPU cores; 0 leaves them alone')
  return parser.parse_args(argv)


def main() -> None:
  args = parse()
  if args.threads:
    pin(args.threads)
  import jax

  from prompt_jax.checkpoints.backbone import load_backbone
  from prompt_jax.data.batches import BatchStream
  from prompt_jax.data.example import Lengths
  from prompt_jax.models.t5.t5 import T5
  from prompt_jax.prompted import PromptedT5
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.tasks.find import find

  backbone = load_backbone('embedded')
  examples = find(args.task).load('train', backbone.vocabulary, Lengths(128, 64))
  stream = BatchStream(examples, args.batch)
  prompt = InputPrompt(length=args.prompt, sees_input=not args.apart)
  if args.model == 'small':
    model, frozen, trainable = our_model(prompt)
  else:
    model = PromptedT5(T5(backbone.config), prompt)
    frozen = {'backbone': jax.device_put(backbone.params)}
    rows = jax.random.normal(jax.random.key(0), (args.prompt, backbone.config.emb_dim))
    trainable = {'prompt': {'encoder': {'prompt': rows}}}

  numbers = range(stream.batches_per_epoch)
  buckets = [stream.rows(n).bucket for n in numbers]
  bucket = statistics.mode(buckets)
  afresh = iter(BatchStream(examples, args.batch))  # so that choosing an epoch's batches counts
  host = timed(functools.partial(taken, afresh), stream.batches_per_epoch)
  batch = jax.device_put(stream.batch(buckets.index(bucket)))
  found = in_turn(programs(model, frozen, trainable, batch), args.steps)
  report(args, batch, found, host)


def taken(batches: Any) -> None:
  """The next batch, on the device."""
  import jax

  jax.block_until_ready(jax.device_put(next(batches)))


def programs(model: Any, frozen: dict, trainable: dict, batch: Any) -> list[Callable[[], Any]]:
  """The parts of the step up to the encoder, the decoder, the loss, and the end."""
  import jax
  import jax.numpy as jnp

  from prompt_jax.stacking import parts_for_caches
  from prompt_jax.training.objective import CrossEntropy, merge
  from prompt_jax.training.optim import Update, adafactor, gradient
  from prompt_jax.training.step import create_state, estimate_update, train_step

  objective, update = CrossEntropy(model), Update(adafactor(0.3))
  state = create_state(trainable, update, seed=0)
  parts = parts_for_caches(*batch.encoder_input_tokens.shape)
  variables = lambda prompt: {'params': merge(prompt, frozen)}

  def encoded(prompt: Any, part: Any) -> Any:
    tokens = part.encoder_input_tokens
    return model.apply(variables(prompt), tokens, method='encode').all_states

  def logits(prompt: Any, part: Any) -> Any:
    return model.apply(variables(prompt), part)[0]

  cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

  def backward(result: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    """The gradient of a random sum of results, over parts of the batch as the step has them."""
    shapes = jax.eval_shape(result, state.trainable, jax.tree.map(lambda x: x[0], cut))
    draw = lambda x: jax.random.normal(jax.random.key(0), x.shape, x.dtype)

    def run(prompt: Any, weights: Any, cut: Any) -> Any:
      def body(total: Any, part: Any) -> Any:
        _, pull = jax.vjp(lambda p: result(p, part), prompt)
        return jax.tree.map(jnp.add, total, pull(weights)[0]), None

      return jax.lax.scan(body, jax.tree.map(jnp.zeros_like, prompt), cut)[0]

    return functools.partial(jax.jit(run), state.trainable, jax.tree.map(draw, shapes), cut)

  half = functools.partial(estimate_update, objective=objective, estimate=gradient)
  half = functools.partial(jax.jit(half), state, frozen, {}, batch)
  # Without donation, so that it can be called again.
  whole = functools.partial(train_step, objectives=[objective], updates=[update])
  whole = functools.partial(jax.jit(whole), [state], frozen, [{}], [{}], [batch])
  return [backward(encoded), backward(logits), half, whole]


def in_turn(calls: list[Callable[[], Any]], steps: int) -> list[Seconds]:
  """The medians of each, after one run that compiles it."""
  import jax

  for call in calls:
    jax.block_until_ready(call())
  found: list[list[Seconds]] = [[] for _ in calls]
  for _ in range(steps):
    for call, runs in zip(calls, found, strict=True):
      runs.append(timed(lambda call=call: jax.block_until_ready(call())))
  return [Seconds(*map(statistics.median, zip(*runs, strict=True))) for runs in found]


def timed(call: Callable[[], Any], times: int = 1) -> Seconds:
  """The means of so many calls."""
  began, used = time.perf_counter(), time.process_time()
  for _ in range(times):
    call()
  return Seconds((time.perf_counter() - began) / times, (time.process_time() - used) / times)


def report(args: argparse.Namespace, batch: Any, found: list[Seconds], host: Seconds) -> None:
  rows, width = batch.encoder_input_tokens.shape
  whole = found[-1]
  print(f'{args.model}: {rows} rows of {width} tokens, targets of '
        f'{batch.decoder_target_tokens.shape[1]}, {args.prompt} prompt rows')  # fmt: skip
  print(f'{"":11}{"ms":>10}{"share":>8}{"CPU ms":>10}{"share":>8}')

  def line(name: str, *parts: float, note: str = '') -> None:
    columns = (f'{1e3 * x:10.2f}{100 * x / of:7.1f}%' for x, of in zip(parts, whole, strict=True))
    print(f'{name:11}{"".join(columns)}{note}')

  for name, before, until in zip(PARTS, [Seconds(0, 0), *found], found, strict=False):
    line(name, until.wall - before.wall, until.cpu - before.cpu)
  line('step', *whole)
  line('input', *host, note='  (host, beside the step)')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
