"""Labels of a prompt from its exports beside those of `infer`, and the CPU time of each.

    python scripts/check_served.py PROMPT_FILE NAME TEXTS FOLDER...

TEXTS has a text a line; NAME is the prompt's in all folders. CPU seconds count all threads and not
the loading; the first texts are answered once before, and all of them where that compiles.
"""

import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

WARM = 64
COMPILED = ('stablehlo', 'savedmodel')  # for each width of a batch


def asked_of_engine(to: str, folder: str, prompt, texts):
  """Log-probabilities of the labels, and CPU seconds."""
  from prompt_jax.export.asking import Asked
  from prompt_jax.export.engines import opened

  words = prompt.words
  engine = opened(to, pathlib.Path(folder), prompt.tuned.backbone.config.vocab_size, words.eos_id)
  labels = prompt.label_ids

  def ask(texts):
    sources = [Asked(prompt.name, engine.source(prompt, text)) for text in texts]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i].ids))
    both = [(sources[i], label) for i in order for label in labels]
    values = [float(x.sum()) for x in engine.log_probs(*zip(*both, strict=True))]
    out = np.empty((len(texts), len(labels)))
    out[order] = np.reshape(values, (len(texts), len(labels)))
    return out

  ask(texts if to in COMPILED else texts[:WARM])
  began = time.process_time()
  return ask(texts), time.process_time() - began


def main(file: str, name: str, lines: str, *folders: str) -> None:
  import prompt_jax as pj
  from prompt_jax.checkpoints.on_disk import read_json
  from prompt_jax.export.manifest import NAME
  from prompt_jax.export.prompt_ids import numbered
  from prompt_jax.export.stablehlo import PlacedPrompt
  from prompt_jax.named_prompts import NamedFile

  texts = [t.strip() for t in pathlib.Path(lines).read_text().splitlines() if t.strip()]
  tuned = pj.load(file)
  tuned.predict(texts[:WARM])
  began = time.process_time()
  answers = tuned.predict(texts)
  seconds = time.process_time() - began
  print(f'infer: {len(texts)} texts, {seconds:.1f} CPU s, {len(texts) / seconds:.1f} a second')
  for folder in folders:
    manifest = read_json(pathlib.Path(folder) / NAME)
    to, about = manifest['to'], next(p for p in manifest['prompts'] if p['name'] == name)
    if to in COMPILED:
      prompt: Any = PlacedPrompt(name, tuned.ready, about.get('group', 0), about['place'])
    else:
      (prompt,) = numbered([NamedFile(name, file)], [tuned.ready], to)
      assert about['ids'][0] == prompt.first, 'the script asks the first prompt of a folder'
    values, seconds = asked_of_engine(to, folder, prompt, texts)
    same = sum(
      prompt.labels[int(np.argmax(row))] == a.prediction
      for row, a in zip(values, answers, strict=True)
    )
    shares = np.exp(values - np.logaddexp.reduce(values, axis=1)[:, None]).max(1)
    apart = max(
      abs(np.log(s) - np.log(a.probability)) for s, a in zip(shares, answers, strict=True)
    )
    print(
      f'{to}: labels equal {same} of {len(texts)}; log-probability of the label differs by at most '
      f'{apart:.2g}; {seconds:.1f} CPU s, {len(texts) / seconds:.1f} a second',
      flush=True,
    )


if __name__ == '__main__':
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  main(*sys.argv[1:])
