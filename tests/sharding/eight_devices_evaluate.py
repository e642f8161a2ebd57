"""Prints, as JSON, what `prompt-jax eval` and `infer` answer on one device and on eight.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python -m tests.sharding.eight_devices_evaluate FOLDER

A process of its own: the number of devices is fixed when JAX starts. FOLDER is for its files.
"""

import json
import pathlib
import sys

import jax
import numpy as np
from flax import traverse_util

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import load_backbone, save_backbone
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
from prompt_jax.cli.main import main as prompt_jax
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.loading import BaseModel
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.initialise import initialise_prompt
from prompt_jax.sharding import placement
from prompt_jax.testing import tiny
from tests.sharding.eight_devices import MESHES, METHODS

CONFIG = T5Config(
  vocab_size=384,
  emb_dim=32,
  num_heads=4,
  head_dim=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=48,
)
# One for each field of an injection, and two that share every batch.
FILES = {'input': 'input', 'more': 'input', 'kv': 'kv', 'delta': 'delta', 'hidden': 'hidden'}
# Which of them each layout is asked; every field under each layout is `eight_devices`'s.
ASKED = {
  'data': ['input', 'more'],
  'tensor': ['kv', 'more'],
  'sequence': ['delta'],
  'fully_sharded': ['hidden'],
  '2d': list(FILES),
}
# Decoding is asked of the layouts that cut rows into most parts and weights into most.
WRITING = 'data', '2d'
# 11 texts of one width in batches of 6: neither number divides over the devices.
TEXTS = [f'text no {n:2}{"a" * (n % 4)}' for n in range(11)]
# Heads do not divide into 8 parts, and the nearest mesh needs no thought of the rows of a batch.
IMPOSSIBLE = '--mesh=1x8', '--layout=tensor'


def write_model(folder: pathlib.Path) -> None:
  params = jax.tree.map(lambda x: 0.3 * x, tiny.random_params(CONFIG))
  save_backbone(folder, name='bytes', config=CONFIG, params=params, vocabulary=ByteVocabulary())


def write_prompts(folder: pathlib.Path, model: pathlib.Path) -> dict[str, str]:
  """Files of prompts whose leaves are not 0, by name."""
  backbone, rng, files = load_backbone(str(model)), np.random.default_rng(0), {}
  facts = {
    'base_model': backbone.name,
    'model': str(model),
    'fingerprint': backbone.fingerprint,
    'width': CONFIG.emb_dim,
    'labels': ['bad', 'good'],
    'target_length': 5,
  }
  for name, method in FILES.items():
    prompt = METHODS[method]
    embedding = backbone.params['token_embedder']['embedding']
    rows, constants = initialise_prompt(
      PromptedT5(T5(CONFIG), prompt), jax.random.key(0), embedding, backbone.vocabulary
    )
    rows = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), rows)
    about = {**facts, 'method': method, 'method_config': describe_method(prompt)}
    files[name] = str(folder / f'{name}.safetensors')
    save_prompt(files[name], Prompt(rows, constants, about))
  weights = {'backbone': jax.tree.map(np.asarray, backbone.params)}
  about = {**facts, 'method': 'none'}
  save_prompt(folder / 'weights.safetensors', Prompt(weights, {}, about, kind='weights'))
  return files


def scores(data: str, files: list[str], folder: pathlib.Path, *where: str) -> list[np.ndarray]:
  """The scores of the labels, [examples, labels] of each prompt."""
  command = ['eval', f'--data={data}', '--batch_size=6', '--gin.RESAMPLES=0', *where]
  assert prompt_jax([*command, '--prompt_file', *files, f'--output={folder}']) == 0
  found = []
  for n in range(len(files)):
    name = f'predictions-{n + 1}.jsonl' if len(files) > 1 else 'predictions.jsonl'
    lines = (folder / name).read_text().splitlines()
    found.append(np.array([list(json.loads(line)['scores'].values()) for line in lines]))
  return found


def answers(texts: str, file: str, folder: pathlib.Path, *where: str) -> list[str]:
  """What is drawn for each text."""
  command = ['infer', f'--prompt_file={file}', '--decoding=nucleus', '--batch_size=6', *where]
  assert prompt_jax([*command, f'--input={texts}', f'--output={folder / "answers"}']) == 0
  lines = (folder / 'answers').read_text().splitlines()
  return [json.loads(line)['prediction'] for line in lines]


def held(model: pathlib.Path, file: pathlib.Path, layout: str) -> float:
  """The share of the weights of a tuned model that the first device holds."""
  place = placement.make(MESHES[layout], layout, jax.devices())
  (ready,) = loading.load_all(BaseModel(str(model)), [str(file)], place)
  flat = traverse_util.flatten_dict(ready.variables['params']['backbone']).values()
  return sum(x.addressable_shards[0].data.nbytes for x in flat) / sum(x.nbytes for x in flat)


def main(folder: pathlib.Path) -> None:
  assert jax.device_count() == 8
  model, data, texts = folder / 'model', folder / 'data.tsv', folder / 'texts.txt'
  write_model(model)
  files = write_prompts(folder, model)
  texts.write_text('\n'.join(TEXTS))
  rows = (f'{text}\t{("good", "bad")[n % 2]}\n' for n, text in enumerate(TEXTS))
  data.write_text('text\tlabel\n' + ''.join(rows))
  wanted = dict(zip(files, scores(str(data), list(files.values()), folder / 'one'), strict=True))
  drawn = answers(str(texts), files['input'], folder / 'one')
  found = {}
  for layout, mesh in MESHES.items():
    where = f'--mesh={mesh[0]}x{mesh[1]}', f'--layout={layout}'
    names = ASKED[layout]
    got = scores(str(data), [files[name] for name in names], folder / layout, *where)
    found[layout] = {
      'scores': {n: float(np.abs(a - wanted[n]).max()) for n, a in zip(names, got, strict=True)},
      'held': held(model, folder / 'weights.safetensors', layout),
    }
    if layout in WRITING:
      same = answers(str(texts), files['input'], folder / layout, *where) == drawn
      found[layout]['answers'] = same
  # A NaN at the end, of which whoever reads the weights would complain.
  weights = model / 'model.safetensors'
  weights.write_bytes(weights.read_bytes()[:-4] + b'\xff' * 4)
  one = f'--prompt_file={files["input"]}'
  refused = [
    prompt_jax(['eval', one, f'--data={data}', *IMPOSSIBLE]),
    prompt_jax(['infer', one, *IMPOSSIBLE, 'a text']),
  ]
  spread = float(np.abs(wanted['input'] - wanted['more']).max())
  print(json.dumps({**found, 'refused': refused, 'spread': spread, 'drawn': len(set(drawn))}))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
