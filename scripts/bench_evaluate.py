"""Times evaluation on a task with labels beside Hugging Face PEFT on the same CPU cores.

python scripts/bench_evaluate.py --data DATA --task sst2 --vocabulary spiece.model

DATA has a folder of JSON Lines files for each task, as `prompt-jax eval --folder` takes. T5 1.1
small with random weights and a prompt, float32:

  peft    generate, greedily and with its cache, then compare with the labels; batches of similar
          length, padded to the longest of each, for as many tokens as the longest label has (a
          model that was trained would stop there, this one would not)
  rank    ours as published: the labels are ranked by their probabilities
  shared  the same for a prompt that does not see the input

Runs alternate in processes of their own. A process evaluates the same examples once to warm up
(ours compiles) and `--passes` times more; texts are tokenised before. The table has medians. Needs
the test extra, for torch, transformers and peft.
"""

import argparse
import json
import os
import tempfile
from typing import Any

import numpy as np
from bench_lengths import padded
from bench_sides import add_common, alternate, median, our_model, peft_model, pin, timed


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add_common(parser, SIDES)
  parser.add_argument('--data', required=True, metavar='DIR', help='folder of the data sets')
  parser.add_argument('--task', default='sst2', help='its name; it has labels')
  parser.add_argument('--vocabulary', required=True, metavar='FILE', help='a SentencePiece model')
  parser.add_argument('--input_length', type=int, default=512, help='most input tokens')
  parser.add_argument('--examples', type=int, default=256, help='of the training split, at random')
  parser.add_argument('--passes', type=int, default=2, help='timed passes of a process')
  parser.add_argument('--ids', help=argparse.SUPPRESS)  # tokenised once, for all processes
  return parser.parse_args(argv)


def tokenise(args: argparse.Namespace, path: str) -> tuple[int, float, int]:
  """Writes inputs and labels as ids; examples, their mean tokens, and tokens of a label."""
  from prompt_jax.data.example import Lengths
  from prompt_jax.data.vocabulary import load_vocabulary
  from prompt_jax.tasks.find import find

  vocabulary = load_vocabulary(args.vocabulary)
  task = find(args.task, args.data)
  examples = task.load('train', vocabulary, Lengths(args.input_length, 64))
  chosen = np.random.default_rng(0).permutation(len(examples))[: args.examples]
  inputs = [examples[i].inputs for i in chosen]
  labels = task.label_tokens(vocabulary, 64)
  ends = np.cumsum([len(x) for x in inputs])
  answers = np.array([examples[i].label for i in chosen])
  np.savez(path, inputs=np.concatenate(inputs), ends=ends, labels=labels, answers=answers)
  return len(inputs), float(ends[-1] / len(inputs)), labels.shape[1]


def read(path: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
  """Inputs, labels int32[C, U], and the number of each input's label."""
  with np.load(path) as arrays:
    inputs = np.split(arrays['inputs'], arrays['ends'][:-1])
    return inputs, arrays['labels'], arrays['answers']


class Labels:
  """A vocabulary of labels alone, whose texts are their numbers and whose ids are the task's."""

  eos_id = 1

  def __init__(self, ids: np.ndarray):
    self._ids = [row[row > 1].tolist() for row in ids]  # without end of sequence and padding

  def encode(self, text: str) -> list[int]:
    return self._ids[int(text)]


def rank(args: argparse.Namespace, sees_input: bool = True) -> dict:
  import jax

  from prompt_jax.data.example import Example, Task
  from prompt_jax.evaluation.evaluator import Evaluator
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt

  inputs, labels, answers = read(args.ids)
  names = tuple(map(str, range(len(labels))))
  task = Task('labels', {}, names, ('accuracy',))
  examples = [
    Example(x, labels[a], '', names[a], int(a), {}, 'labels')
    for x, a in zip(inputs, answers, strict=True)
  ]
  model, frozen, trainable = our_model(InputPrompt(args.prompt, sees_input=sees_input), args.unroll)
  variables = {'params': jax.device_put({**frozen, **trainable})}
  evaluator: Any = Evaluator(
    model,
    Labels(labels),  # type: ignore[arg-type]
    task,
    max_target_length=labels.shape[1],
    batch_size=args.batch,
  )
  return timed(lambda: evaluator(variables, examples), args.passes, warm_up=1)


def shared(args: argparse.Namespace) -> dict:
  """The prompt does not see the input, and is computed once a batch."""
  return rank(args, sees_input=False)


def peft(args: argparse.Namespace) -> dict:
  import torch

  inputs, labels, answers = read(args.ids)
  model = peft_model(args.prompt, args.threads).eval()
  order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i]))
  batches = []
  for start in range(0, len(order), args.batch):
    chosen = order[start : start + args.batch]
    ids = padded([inputs[i] for i in chosen])
    mask = torch.from_numpy((ids > 0).astype(np.int64))
    batches.append((torch.from_numpy(ids), mask, torch.from_numpy(labels[answers[chosen]])))
  width = labels.shape[1]

  def evaluate() -> int:
    right = 0
    with torch.inference_mode():
      for ids, mask, wanted in batches:
        made = model.generate(
          input_ids=ids, attention_mask=mask, max_new_tokens=width, do_sample=False, num_beams=1
        )
        made = torch.nn.functional.pad(made[:, 1:], (0, width + 1 - made.shape[1]))
        right += int((made == wanted).all(dim=1).sum())
    return right

  return timed(evaluate, args.passes, warm_up=1)


SIDES = {'peft': peft, 'rank': rank, 'shared': shared}


def main() -> None:
  args = parse()
  pin(args.threads)
  if args.only:
    print(json.dumps(SIDES[args.only](args)))
    return
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'ids.npz')
    count, mean, width = tokenise(args, path)
    results = alternate(SIDES, args.rounds, f'--ids={path}')
  print(f'{args.task}: {count} examples of {mean:.1f} tokens, labels of up to {width} tokens, '
        f'{args.batch} a batch, {args.prompt} prompt rows')  # fmt: skip
  print(f'{"":8}{"ex/s":>8}{"/ PEFT":>9}{"CPU s":>8}{"/ PEFT":>9}{"peak GiB":>10}')
  wall, cpu = (
    {name: median(runs, key) for name, runs in results.items()} for key in ('wall', 'cpu')
  )
  for name, runs in results.items():
    peak = max(run['peak_gib'] for run in runs)
    line = f'{name:8}{count / wall[name]:8.1f}{wall["peft"] / wall[name]:8.2f}x{cpu[name]:8.1f}'
    print(f'{line}{cpu["peft"] / cpu[name]:8.2f}x{peak:10.2f}')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
