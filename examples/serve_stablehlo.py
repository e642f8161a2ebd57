"""Answers lines "NAME<tab>TEXT" with the prompts of `prompt-jax export ... --to stablehlo`.

python examples/serve_stablehlo.py FOLDER < lines.tsv

It needs jax, numpy, flatbuffers and sentencepiece. Prompts of one group share a batch.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import sentencepiece
from jax import export

KINDS = {'F32': np.float32, 'I32': np.int32}


def arrays(path):
  """The arrays of a safetensors file."""
  data = path.read_bytes()
  start = 8 + int.from_bytes(data[:8], 'little')
  found = {}
  for name, x in json.loads(data[8:start]).items():
    values = np.frombuffer(data[start + x['data_offsets'][0] : start + x['data_offsets'][1]], 'u1')
    found[name] = values.view(KINDS[x['dtype']]).reshape(x['shape'])
  return jax.device_put(found)


def padded(rows, width):
  return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


def answered(folder, prompts, texts):
  """Answers of one group to texts, each of its own prompt."""
  programs = [export.deserialize(bytearray((folder / f'{name}.stablehlo').read_bytes()))
              for name in ('write', 'score')]  # fmt: skip
  write, score = (jax.jit(program.call) for program in programs)
  theirs = arrays(folder / 'prompts.safetensors')
  ids = [[*cut.encode(t)[: p['input_length'] - 1], 1] for p, t in zip(prompts, texts, strict=True)]
  # A program is compiled for each shape: a server rounds widths up, and fills batches.
  tokens = padded(ids, -(-max(map(len, ids)) // 16) * 16)
  place, limit = (np.array([p[k] for p in prompts], np.int32) for k in ('place', 'target_length'))
  no, none = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
  # Behind the limit: temperature, top_k, top_p and seed of each text.
  written, _ = write(weights, theirs, place, tokens, limit, none, no, none, no)
  ends = [[*row, 1].index(1) for row in np.asarray(written).tolist()]
  found = [
    cut.decode(row[:end].tolist()) for row, end in zip(np.asarray(written), ends, strict=True)
  ]
  labels = [p['label_ids'] or [[1]] for p in prompts]
  width, most = max(2, *(len(x) for own in labels for x in own)), max(map(len, labels))
  targets = np.array([padded([*own, *[[]] * (most - len(own))], width) for own in labels])
  scores = np.asarray(score(weights, theirs, place, tokens, targets)).sum(-1)
  for i, p in enumerate(prompts):
    if p['labels']:  # the most probable one, whatever would be written
      found[i] = p['labels'][int(scores[i, : len(p['labels'])].argmax())]
  return found


folder = pathlib.Path(sys.argv[1])
about = json.loads((folder / 'prompts.json').read_text())
prompts = {prompt['name']: prompt for prompt in about['prompts']}
cut = sentencepiece.SentencePieceProcessor(model_file=str(folder / 'sentencepiece.model'))
weights = arrays(folder / 'weights.safetensors')
lines = [line.rstrip('\n').partition('\t')[::2] for line in sys.stdin]
if unknown := {name for name, _ in lines} - prompts.keys():
  sys.exit(f'No prompt is called {", ".join(sorted(unknown))}; known: {", ".join(prompts)}.')
answers = {}
for number, group in enumerate(about['groups']):
  asked = [i for i, (name, _) in enumerate(lines) if prompts[name]['group'] == number]
  if asked:
    own, texts = [prompts[lines[i][0]] for i in asked], [lines[i][1] for i in asked]
    answers.update(zip(asked, answered(folder / group['folder'], own, texts), strict=True))
print(*(answers[i] for i in range(len(lines))), sep='\n')
