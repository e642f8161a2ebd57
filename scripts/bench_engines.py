"""Other software beside ours, on T5 1.1 small with random weights.

python scripts/bench_engines.py peft [--clients 16,64] [--seconds 10] [--turns 2]
python scripts/bench_engines.py ctranslate2 [--quantize int8] [--turns 3]

`peft`: the server of this package, with its own engine and with PEFT's on torch, under mixed
traffic. PEFT computes a batch for one adapter at a time: what waits is grouped by prompt.
`ctranslate2`: 32 texts by `infer` and by an export. Texts of about 20 tokens, answers of 16; every
answer is compared with that of `infer`.
"""

import argparse
import asyncio
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from bench_serve import TEXTS as ALL
from bench_serve import Load, cpu, server

LETTERS = range(3 + ord('a'), 3 + ord('z') + 1)  # ids of bytes
WRITTEN = 16  # tokens of an answer
THREADS = 2
TEXTS = ALL[:3]
ALONE = 2  # prompts whose answers are those of `infer` with one alone


def write(folder: pathlib.Path, count: int, rows: int) -> tuple[str, list[str]]:
  """A model that answers with letters, and files of random prompts."""
  import jax

  from prompt_jax.checkpoints.backbone import load_backbone, save_backbone
  from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
  from prompt_jax.data.vocabulary import ByteVocabulary
  from prompt_jax.models.t5.config import T5Config
  from prompt_jax.prompts.base import first_values
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.testing import tiny

  config, rng = T5Config(32128, 512, 6, 64, 8, 8, 1024), np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x / np.sqrt(x.shape[-2] if x.ndim > 1 else 1), tiny.random_params(config)
  )
  others = np.ones(config.vocab_size, bool)
  others[list(LETTERS)] = False
  params['decoder']['logits_dense']['kernel'][:, others] = 0
  model = str(folder / 'model')
  save_backbone(model, name='small', config=config, params=params, vocabulary=ByteVocabulary())
  backbone, method = load_backbone(model), InputPrompt(length=rows)
  about = {
    'base_model': backbone.name, 'fingerprint': backbone.fingerprint, 'width': config.emb_dim,
    'method': 'InputPrompt', 'method_config': describe_method(method), 'model': model,
    'labels': None, 'input_length': 64, 'target_length': WRITTEN,
  }  # fmt: skip
  _, variables = first_values(method, jax.random.key(0), config.sizes)
  first, files = variables['params'], []
  for i in range(count):
    files.append(str(folder / f'p{i:03}.safetensors'))
    draw = lambda x: rng.normal(scale=0.1, size=x.shape).astype(np.float32)
    save_prompt(files[-1], Prompt(jax.tree.map(draw, first), {}, about))
  return model, files


def command(*argv: str) -> None:
  subprocess.run([sys.executable, '-m', 'prompt_jax', *argv], check=True, stdout=sys.stderr)


def expected_of(files: list[str]) -> dict[tuple[str, str], str]:
  """(prompt, text) -> the answer; of the first prompts, as `infer` gives it with one alone."""
  import prompt_jax as pj

  pairs = [(pathlib.Path(file).stem, text) for file in files for text in TEXTS]
  names, texts = zip(*pairs, strict=True)
  known = dict(zip(pairs, pj.load(files).generate(texts, names), strict=True))
  for file in files[:ALONE]:
    for text, answer in zip(TEXTS, pj.load(file).generate(TEXTS), strict=True):
      assert known[pathlib.Path(file).stem, text] == answer
  return known


class Answers(Load):
  """Requests for text."""

  def is_right(self, choice: dict[str, Any], known: Any) -> bool:
    return choice['text'] == known


class PeftEngine:
  """An `Engine` of the server; a batch has rows of one prompt."""

  base_model, beams = 'small', ()

  def __init__(self, model: str, adapters: list[str]):
    import peft
    import torch
    import transformers

    from prompt_jax.data.example import Lengths
    from prompt_jax.data.vocabulary import ByteVocabulary
    from prompt_jax.serving.ctranslate2_engine import Prompt

    torch.set_num_threads(THREADS)
    self._torch, self._vocabulary = torch, ByteVocabulary()
    self.names = tuple(pathlib.Path(folder).name for folder in adapters)
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(model, dtype=torch.float32)
    self._tuned = peft.PeftModel.from_pretrained(base, adapters[0], adapter_name=self.names[0])
    for name, folder in zip(self.names[1:], adapters[1:], strict=True):
      self._tuned.load_adapter(folder, name)
    self._tuned.eval()
    lengths = Lengths(64, WRITTEN)
    self._by_name = {name: Prompt(name, lengths, (), (), (), 'before') for name in self.names}
    self.prompts = list(self._by_name.values())

  def __getitem__(self, name: str) -> Any:
    return self._by_name[name]

  def tokens(self, text: str, prompt: Any) -> np.ndarray:
    from prompt_jax.data.example import encode

    return encode(text, self._vocabulary, prompt.lengths.inputs)

  def words(self, tokens: np.ndarray) -> str:
    return self._vocabulary.decode(tokens)

  def group(self, prompt: Any, tokens: np.ndarray) -> str:
    return prompt.name

  def programs(self) -> Any:
    return iter(())

  def __call__(self, rows: Any, settings: Any, tell: Any = None) -> list[Any]:
    from prompt_jax.serving.rows import Found

    torch, size = self._torch, max(len(row.tokens) for row in rows)
    ids = torch.zeros(len(rows), size, dtype=torch.long)
    for own, row in zip(ids, rows, strict=True):
      own[: len(row.tokens)] = torch.from_numpy(row.tokens)
    self._tuned.set_adapter(rows[0].prompt)
    with torch.inference_mode():
      written = self._tuned.generate(
        input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=WRITTEN, do_sample=False
      )
    found = [own[1:].numpy() for own in written]
    return [Found(self[row.prompt], own, 0.0) for row, own in zip(rows, found, strict=True)]


def serve_peft(model: str, adapters: list[str]) -> None:
  """The server of this package on PEFT."""
  from prompt_jax.serving import listening
  from prompt_jax.serving.app import Server
  from prompt_jax.serving.asking import Limits

  with listening.listen('127.0.0.1', 0) as socket:
    listening.answer(socket, Server(PeftEngine(model, adapters), Limits()))


def beside_peft(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Requests a second under mixed traffic, in turns."""
  model, files = write(folder, args.prompts, 20)
  known, names = expected_of(files), [pathlib.Path(f).stem for f in files]
  command('convert', model, str(folder / 'hf'), '--to=hf')
  adapters = [str(folder / 'adapters' / name) for name in names]
  (folder / 'adapters').mkdir()
  for file, adapter in zip(files, adapters, strict=True):
    export(file, adapter)
  ours = ['-m', 'prompt_jax', 'serve', *files, '--port=0']
  theirs = [__file__, 'serve_peft', str(folder / 'hf'), *adapters]
  rates: dict[tuple[str, int], list[float]] = {}
  with server(ours) as here, server(theirs) as there:
    for _ in range(args.turns):
      for clients in args.clients:
        for name, (pid, port) in (('ours', here), ('PEFT', there)):
          load, before = Answers(port, names, known), cpu(pid)
          rate = asyncio.run(load.closed(clients, args.seconds))
          rates.setdefault((name, clients), []).append(rate)
          spent = 1000 * (cpu(pid) - before) / len(load.seconds)
          print(f'{name}, {clients} clients: {rate:.1f}/s, {spent:.0f} ms CPU a request, '
                f'{load.told()}', flush=True)  # fmt: skip
  for clients in args.clients:
    ours_, theirs_ = (statistics.mean(rates[name, clients]) for name in ('ours', 'PEFT'))
    print(f'{clients} clients: {ours_:.1f} against {theirs_:.1f}: {ours_ / theirs_:.1f} times')


def export(file: str, to: str) -> None:
  import prompt_jax as pj

  pj.export_prompt([file], to, to='peft')


def beside_ctranslate2(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """CPU seconds of 32 texts, in turns; one thread each."""
  os.environ |= {'OMP_NUM_THREADS': '1', 'XLA_FLAGS': '--xla_cpu_multi_thread_eigen=false'}
  import prompt_jax as pj
  from prompt_jax.serving.ctranslate2_engine import CTranslate2Engine
  from prompt_jax.serving.rows import Row, Settings

  _, (file,) = write(folder, 1, 100)
  texts = [f'{ALL[i % len(ALL)][:17]} {i:02}' for i in range(32)]
  pj.export_prompt(
    [file], str(folder / 'served'), to='ctranslate2', quantize=args.quantize, samples=texts,
    least_agreement=0.0,  # of random weights, whose answers are close to each other
  )  # fmt: skip
  tuned, engine = pj.load(file), CTranslate2Engine(str(folder / 'served'))
  prompt = engine[engine.names[0]]
  rows = [Row(prompt.name, engine.tokens(text, prompt), WRITTEN) for text in texts]
  ways = {
    'infer': lambda: tuned.generate(texts),
    'CTranslate2': lambda: [
      engine.words(found.tokens) for found in engine(rows, Settings('generate'))
    ],
  }
  answers = {name: way() for name, way in ways.items()}  # compiles too
  same = sum(a == b for a, b in zip(*answers.values(), strict=True))
  print(f'{same} of {len(texts)} answers are the same')
  spent: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(args.turns):
    for name, way in ways.items():
      began = time.process_time()
      way()
      spent[name].append(time.process_time() - began)
  for name, found in spent.items():
    print(f'{name}: {min(found):.2f} CPU s at least, {statistics.median(found):.2f} in the middle, '
          f'{len(texts) / min(found):.1f} texts a CPU second')  # fmt: skip
  print(f'{min(spent["infer"]) / min(spent["CTranslate2"]):.2f} times')


def main() -> None:
  if sys.argv[1:2] == ['serve_peft']:
    serve_peft(sys.argv[2], sys.argv[3:])
    return
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('beside', choices=('peft', 'ctranslate2'))
  parser.add_argument('--prompts', type=int, default=64)
  parser.add_argument('--clients', type=lambda x: [*map(int, x.split(','))], default=[16, 64])
  parser.add_argument('--seconds', type=float, default=10.0)
  parser.add_argument('--quantize', help='numbers of CTranslate2, such as int8')
  parser.add_argument('--turns', type=int, default=2)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    call = {'peft': beside_peft, 'ctranslate2': beside_ctranslate2}[args.beside]
    call(args, pathlib.Path(folder))


if __name__ == '__main__':
  main()
