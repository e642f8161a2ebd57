"""Answers lines "NAME<tab>TEXT" with the prompts of `prompt-jax export ... --to ctranslate2`.

python examples/serve_ctranslate2.py FOLDER < lines.tsv
"""

import json
import pathlib
import sys

import ctranslate2
import sentencepiece

folder = pathlib.Path(sys.argv[1])
read = lambda name: json.loads((folder / name).read_text())
prompts = {prompt['name']: prompt for prompt in read('prompts.json')['prompts']}
names, target = read('source_vocabulary.json'), read('target_vocabulary.json')
cut = sentencepiece.SentencePieceProcessor(model_file=str(folder / 'sentencepiece.model'))
model = ctranslate2.Translator(str(folder))

asked = [line.rstrip('\n').partition('\t')[::2] for line in sys.stdin]  # any prompts in one batch
if unknown := {name for name, _ in asked} - prompts.keys():
  sys.exit(f'No prompt is called {", ".join(sorted(unknown))}; known: {", ".join(prompts)}.')
texts = [cut.encode(text)[: prompts[name]['input_length'] - 1] for name, text in asked]
sources = [[*prompts[n]['ids'], *text, 1] for (n, _), text in zip(asked, texts, strict=True)]
batch = [[names[i] for i in ids] for ids in sources]
most = max(prompts[name]['target_length'] for name, _ in asked)
# Without min_decoding_length=0 no answer could be empty.
written = model.translate_batch(batch, beam_size=1, min_decoding_length=0, max_decoding_length=most)
for (name, _), source, result in zip(asked, batch, written, strict=True):
  answer = cut.decode([cut.piece_to_id(token) for token in result.hypotheses[0]])
  if labels := prompts[name]['labels']:  # the most probable one, whatever would be written
    words = [[target[i] for i in ids[:-1]] for ids in prompts[name]['label_ids']]
    scores = model.score_batch([source] * len(words), words)
    answer = max(zip(labels, scores, strict=True), key=lambda pair: sum(pair[1].log_probs))[0]
  print(answer)
