"""Folders as runs leave them, written by hand: what they hold is known to the last digit."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints.prompt_file import Prompt, save_prompt

SETTINGS = {
  'BATCH_SIZE': 8,
  'LEARNING_RATE': '%PROMPT_LEARNING_RATE',
  'METRIC': None,
  'MODEL': "'models/tiny'",
  'PATIENCE': None,
  'PROMPT': '@input_prompt.InputPrompt()',
  'PROMPT_LEARNING_RATE': 0.3,
  'PROMPT_LENGTH': 2,
  'SEED': 0,
  'SEEDS': None,
  'STEPS': 100,
  'TASK': "'colours'",
  'TRAINABLE': "('prompt/.*',)",
  'settings.Settings.mode': "'max'",
}
BASELINES = {
  'majority class': {'scores': [{'accuracy': 25.0}], 'trained': None},
  'the model, untuned': {'scores': [{'accuracy': 20.0, 'f1_macro': 10.0}], 'trained': 0},
}


def config(folder: pathlib.Path, verb: str = 'train', **changes: Any) -> None:
  """operative_config.gin; values are as gin writes them."""
  entry = 'evaluate' if verb == 'eval' else verb
  lines = [f'{name} = {value}' for name, value in {**SETTINGS, **changes}.items()]
  folder.mkdir(parents=True, exist_ok=True)
  text = '# Macros:\n' + '\n'.join(lines) + f'\n\n{verb}.{entry}.model = %MODEL\n'
  (folder / 'operative_config.gin').write_text(text)


def records(
  folder: pathlib.Path, losses: Mapping[int, float], scores: Mapping[int, Mapping[str, float]]
) -> None:
  """metrics.jsonl, with 8 examples a step and 16 a second, and evaluations of 2 seconds."""
  lines: list[dict[str, Any]] = [
    {'step': s, 'kind': 'train', 'loss': v, 'examples': 8.0, 'examples_per_second': 16.0}
    for s, v in losses.items()
  ]
  lines += [{'step': s, 'kind': 'eval', **v, 'seconds': 2.0} for s, v in scores.items()]
  lines.sort(key=lambda r: r['step'])
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in lines))


def prompt(folder: pathlib.Path, name: str = 'prompt', **changes: Any) -> None:
  """A prompt file of 2 rows of 4 numbers."""
  metadata = {
    'base_model': 'tiny', 'fingerprint': 'f', 'parameters': 1000, 'method': 'InputPrompt',
    'width': 4, 'length': 2, 'patterns': ['prompt/.*'], 'task': 'colours',
    'labels': ['red', 'green'],
    'method_config': {'class': 'a.prompts.input_prompt.InputPrompt', 'fields': {}},
  }  # fmt: skip
  rows = {'encoder': {'prompt': np.zeros((2, 4), np.float32)}}
  save_prompt(folder / f'{name}.safetensors', Prompt(rows, {}, {**metadata, **changes}))


def results(
  folder: pathlib.Path, scores: Sequence[Mapping[str, float]], task: str = 'colours', **more: Any
) -> None:
  """results.json of `train`."""
  systems = {**BASELINES, 'tuned prompt': {'scores': scores, 'trained': 8}}
  folder.mkdir(parents=True, exist_ok=True)
  found = {'task': task, 'split': 'test', **more, 'systems': systems}
  (folder / 'results.json').write_text(json.dumps(found))


def predictions(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """predictions.jsonl; a row needs no more than what differs."""
  usual = {'input': 'i', 'target': 'red', 'prediction': 'red', 'correct': True, 'scores': {}}
  lines = [json.dumps({**usual, **row}) for row in rows]
  (folder / 'predictions.jsonl').write_text('\n'.join(lines) + '\n')


def run(folder: pathlib.Path, accuracy: float = 50.0, **changes: Any) -> None:
  """A finished run of one seed."""
  config(folder, **changes)
  records(folder, {50: 1.0, 100: 0.5}, {50: {'accuracy': 30.0}, 100: {'accuracy': 40.0}})
  prompt(folder)
  results(folder, [{'accuracy': accuracy, 'f1_macro': accuracy / 2}])


def seeds(folder: pathlib.Path, accuracies: Sequence[float]) -> None:
  """A finished run of several seeds."""
  config(folder, SEEDS=list(range(len(accuracies))))
  for seed in range(len(accuracies)):
    place = folder / f'seed_{seed}'
    records(place, {100: 1.0}, {100: {'accuracy': 40.0 + seed}})
    prompt(place)
  results(folder, [{'accuracy': a} for a in accuracies])
