"""A few rows of every data set as its makers published it, and the examples they become."""

import json
from typing import Any, NamedTuple

from prompt_jax.tasks.generation import LANGUAGES


class Published(NamedTuple):
  """Files below the folder of all sets, and the first example of each split."""

  files: dict[str, str]
  examples: dict[str, tuple[str, str]]  # split -> (inputs, targets)
  variant: str = ''


def lines(*rows: dict[str, Any]) -> str:
  return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def columns(*rows: tuple[str, ...], separator: str = '\t') -> str:
  return ''.join(separator.join(row) + '\n' for row in rows)


def squad(identifier: str = 'q1') -> str:
  answers = [{'text': 'Bonn.', 'answer_start': 3}, {'text': 'Bonn', 'answer_start': 3}]
  qa = {'id': identifier, 'question': 'Where, then?', 'answers': answers}
  paragraphs = [{'context': 'In Bonn.', 'qas': [qa]}]
  return json.dumps({'version': '1.1', 'data': [{'title': 'T', 'paragraphs': paragraphs}]})


SPAN = ('question: Where , then ? context: In Bonn .', 'Bonn .')
NLI = {'premise': 'P.', 'hypothesis': 'H.'}
SAID = 'hypothesis: H. premise: P.'
PAIR = ('sentence1', 'sentence2')
MRQA = {
  'context': 'In Bonn.',
  'qas': [{'qid': 'q1', 'question': 'Where, then?', 'answers': ['Bonn.', 'Bonn']}],
}
XML = """<?xml version="1.0"?><benchmark><entries>
<entry category="City" eid="Id1"><modifiedtripleset><mtriple>Bonn | country | Germany</mtriple>
<mtriple>Bonn | river | Rhine</mtriple></modifiedtripleset>
<lex comment="good" lid="Id1">Bonn is German.</lex><lex lid="Id2">In Germany is Bonn.</lex>
<lex lid="Id3" lang="ru">Бонн в Германии.</lex></entry></entries></benchmark>"""
DART = [
  {
    'tripleset': [['Bonn', 'COUNTRY', 'Germany'], ['Bonn', 'RIVER', 'Rhine']],
    'annotations': [{'source': 'x', 'text': 'Bonn is German.'}, {'source': 'x', 'text': 'Two.'}],
  }
]
TALK = 'A: Hi\nB: Hello'
SUMMARY = {'document': 'Long text.', 'references': 'Short.'}
MULTIRC = {
  'idx': 3,
  'passage': {
    'text': 'One. Two.',
    'questions': [{'question': 'Q?', 'idx': 7, 'answers': [{'text': 'A', 'idx': 0, 'label': 1}]}],
  },
}
RECORD = {
  'idx': 1,
  'passage': {
    'text': 'Ann met Bob.',
    'entities': [{'start': 8, 'end': 10}, {'start': 0, 'end': 2}],
  },
  'qas': [
    {
      'idx': 2,
      'query': 'The @placeholder sang.',
      'answers': [{'start': 8, 'end': 10, 'text': 'Bob'}],
    }
  ],
}
WSC = {
  'text': 'Ann ran as she hid', 'label': True, 'idx': 0,
  'target': {'span1_index': 0, 'span1_text': 'Ann', 'span2_index': 3, 'span2_text': 'she'},
}  # fmt: skip


def glue(place: str, header: tuple[str, ...], row: tuple[str, ...], text: str, target: str):
  content = columns(header, row)
  files = {f'{place}/train.tsv': content, f'{place}/dev.tsv': content}
  return Published(files, {'train': (text, target), 'validation': (text, target)})


def super_glue(place: str, row: dict[str, Any], text: str, target: str):
  files = {f'{place}/{name}.jsonl': lines(row) for name in ('train', 'val')}
  return Published(files, {'train': (text, target), 'validation': (text, target)})


def plain(name: str, row: dict[str, Any], text: str, target: str, variant: str = ''):
  """A set that is read as JSON Lines."""
  dot = f'.{variant}' if variant else ''
  return Published({f'{name}/test{dot}.jsonl': lines(row)}, {'test': (text, target)}, variant)


STRINGS = ('#1 String', '#2 String')
MRPC_FILE = columns(('Quality', '#1 ID', '#2 ID', *STRINGS), ('1', '7', '8', 'One.', 'Two.'))
QQP_HEADER = ('id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate')
QQP_FILE = columns(QQP_HEADER, ('0', '1', '2', 'A?', 'B?', '0'))

CASES: dict[str, Published] = {
  # classification.py
  **{
    name: plain(name, row, text, target)
    for name, row, text, target in (
      ('rte', {**NLI, 'label': 'entailment'}, f'rte {SAID}', 'entailment'),
      ('cb', {**NLI, 'label': 'neutral'}, f'cb {SAID}', 'neutral'),
      ('mnli', {**NLI, 'label': 'contradiction'}, f'mnli {SAID}', 'contradiction'),
      ('copa', {'premise': 'P.', 'choice1': 'A.', 'choice2': 'B.', 'question': 'cause', 'label': 1},
       'copa choice1: A. choice2: B. premise: P. question: cause', 'choice2'),
      ('boolq', {'question': 'is it', 'passage': 'It is.', 'label': True},
       'boolq passage: It is. question: is it', 'True'),
      ('wic', {'sentence1': 'One.', 'sentence2': 'Two.', 'word': 'w', 'label': False},
       'wic sentence1: One. sentence2: Two. word: w', 'False'),
      ('sst2', {'sentence': 'S.', 'label': 'positive'}, 'sst2 sentence: S.', 'positive'),
      ('mrpc', {'sentence1': 'One.', 'sentence2': 'Two.', 'label': 'equivalent'},
       'mrpc sentence1: One. sentence2: Two.', 'equivalent'),
      ('trec', {'question': 'Q?', 'label': 'human'}, 'trec question: Q?', 'human'),
      ('ag_news', {'title': 'T', 'description': 'D', 'label': 'Sci/Tech'},
       'ag_news title: T description: D', 'Sci/Tech'),
      ('restaurant8k', {'question': 'When?', 'context': 'At 6, please', 'answers': ['6']},
       'question: When? context: At 6, please', '6'),
      ('squad_qg', {'sentence': 'S.', 'question': 'Q?'}, 'generate question: S.', 'Q?'),
      ('webnlg2017', {'triples': ['a | b | c', 'd | e | f'], 'references': ['T.', 'U.']},
       'webnlg: a | b | c && d | e | f', 'T.'),
      ('asset', {'source': 'S.', 'references': ['T.', 'U.']}, 'simplify: S.', 'T.'),
      ('aeslc', SUMMARY, 'summarize: Long text.', 'Short.'),
      ('billsum', SUMMARY, 'summarize: Long text.', 'Short.'),
      ('gigaword', SUMMARY, 'summarize: Long text.', 'Short.'),
      ('multi_news', SUMMARY, 'summarize: Long text.', 'Short.'),
      ('newsroom', SUMMARY, 'summarize: Long text.', 'Short.'),
    )
  },
  'banking77': Published(
    {'banking77/banking_data/train.csv': 'text,category\nWhere?,card_arrival\n',
     'banking77/banking_data/test.csv': 'text,category\n"Well, where?",card_arrival\n'},
    {'test': ('banking77 text: Well, where?', 'card arrival')},
  ),
  'snli': Published(
    {f'snli_1.0/snli_1.0_{split}.jsonl': lines(
      {'sentence1': 'X', 'sentence2': 'Y', 'gold_label': '-'},
      {'sentence1': 'P.', 'sentence2': 'H.', 'gold_label': 'neutral'})
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), (f'snli {SAID}', 'neutral')),
  ),
  'anli': Published(
    {f'anli_v0.1/R2/{split}.jsonl': lines(
      {'uid': 'u', 'context': 'P.', 'hypothesis': 'H.', 'label': 'c', 'reason': ''})
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), (f'anli {SAID}', 'contradiction')),
    'R2',
  ),
  'doc_nli': Published(
    {f'DocNLI_dataset/{split}.json': json.dumps([{**NLI, 'label': 'not_entailment'}])
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), (f'doc_nli {SAID}', 'not_entailment')),
  ),
  'dpr': Published(
    {f'dpr/{split}.c.txt': 'The bee landed on the flower because it had pollen.\nit\n'
     'The bee,the flower\nthe flower\n\n' for split in ('train', 'test')},
    dict.fromkeys(
      ('train', 'test'),
      ('wsc: The bee landed on the flower because *it* had pollen.', 'the flower')),
  ),
  # qa.py
  'squad': Published(
    {'squad/train-v1.1.json': squad(), 'squad/dev-v1.1.json': squad()},
    {'train': SPAN, 'validation': SPAN},
  ),
  'mrqa': Published(
    {f'mrqa/{split}/DuoRC.ParaphraseRC.jsonl.gz': lines({'header': {'dataset': 'D'}}, MRQA)
     for split in ('train', 'dev')},
    {'train': SPAN, 'validation': SPAN},
    'DuoRC.ParaphraseRC',
  ),
  'xquad': Published({'xquad/xquad.de.json': squad()}, {'test': SPAN}, 'de'),
  'mlqa': Published(
    {'MLQA_V1/dev/dev-context-hi-question-hi.json': squad(),
     'MLQA_V1/test/test-context-hi-question-hi.json': squad()},
    {'validation': SPAN, 'test': SPAN}, 'hi',
  ),
  'tydiqa_goldp': Published(
    {f'tydiqa_goldp/tydiqa-goldp-v1.1-{split}.json': squad('swahili-1') for split in
     ('train', 'dev')},
    {'train': SPAN, 'validation': SPAN}, 'swahili',
  ),
  # cross_lingual.py
  'xnli': Published(
    {'xnli/XNLI-MT-1.0/multinli/multinli.train.de.tsv':
       columns(('premise', 'hypo', 'label'), ('P.', 'H.', 'contradictory')),
     **{f'xnli/XNLI-1.0/xnli.{split}.tsv': columns(
       ('language', 'gold_label', 'sentence1', 'sentence2'),
       ('ar', 'neutral', 'x', 'y'), ('de', 'entailment', 'P.', 'H.')) for split in
       ('dev', 'test')}},
    {'train': (f'xnli {SAID}', 'contradiction'), 'validation': (f'xnli {SAID}', 'entailment'),
     'test': (f'xnli {SAID}', 'entailment')},
    'de',
  ),
  'pawsx': Published(
    {f'x-final/ko/{name}.tsv': columns(('id', *PAIR, 'label'), ('1', 'x', 'y', 'NS'),
                                       ('2', 'One.', 'Two.', '1'))
     for name in ('translated_train', 'dev_2k', 'test_2k')},
    dict.fromkeys(('train', 'validation', 'test'),
                  ('pawsx sentence1: One. sentence2: Two.', 'equivalent')),
    'ko',
  ),
  'xcopa': Published(
    {f'xcopa/data/qu/{split}.qu.jsonl': lines({'premise': 'P.', 'choice1': 'A.', 'choice2': 'B.',
     'question': 'effect', 'label': 0, 'idx': 4, 'changed': False}) for split in ('val', 'test')},
    dict.fromkeys(('validation', 'test'),
                  ('copa choice1: A. choice2: B. premise: P. question: effect', 'choice1')),
    'qu',
  ),
  'wikiann': Published(
    {f'wikiann/de/{split}': 'de:Ada\tB-PER\nde:Byron\tI-PER\nde:in\tO\nde:Bonn\tB-LOC\n\nde:ja\tO\n'
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'),
                  ('tag: Ada Byron in Bonn', 'PER: Ada Byron $$ LOC: Bonn')),
    'de',
  ),
  'sib200': Published(
    {f'sib200/data/annotated/quy_Latn/{split}.tsv':
     columns(('index_id', 'category', 'text'), ('7', 'travel', 'T.'))
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), ('sib200 text: T.', 'travel')), 'quy_Latn',
  ),
  'nusax_senti': Published(
    {f'nusax_senti/datasets/sentiment/ngaju/{split}.csv': 'id,text,label\n1,"A, b",neutral\n'
     for split in ('train', 'valid', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), ('nusax text: A, b', 'neutral')), 'ngaju',
  ),
  **{
    name: Published(
      {f'masakhanews/hau/{split}.tsv':
       columns(('category', 'headline', 'text', 'url'), ('health', 'H', 'T.', 'u'))
       for split in ('train', 'dev', 'test')},
      dict.fromkeys(('train', 'validation', 'test'), example), 'hau')
    for name, example in (
      ('masakhanews', ('masakhanews headline: H text: T.', 'health')),
      ('masakhanews_headline', ('headline: T.', 'H')))
  },
  'americas_nli': Published(
    {f'americas_nli/{split}.tsv': columns(('language', 'premise', 'hypothesis', 'label'),
     ('gn', 'x', 'y', 'neutral'), ('quy', 'P.', 'H.', 'entailment')) for split in ('dev', 'test')},
    dict.fromkeys(('validation', 'test'), (f'mnli {SAID}', 'entailment')), 'quy',
  ),
  'belebele': Published(
    {'Belebele/data/yor_Latn.jsonl': lines({'flores_passage': 'P.', 'question': 'Q?',
     'mc_answer1': 'a', 'mc_answer2': 'b', 'mc_answer3': 'c', 'mc_answer4': 'd',
     'correct_answer_num': '3'})},
    {'test': ('belebele choice1: a choice2: b choice3: c choice4: d passage: P. question: Q?',
              'choice3')}, 'yor_Latn',
  ),
  # generation.py
  'webnlg': Published(
    {f'webnlg-dataset/release_v3.0/en/{split}/1triples/City.xml': XML
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'),
                  ('webnlg: Bonn | country | Germany && Bonn | river | Rhine', 'Bonn is German.')),
  ),
  'e2e': Published(
    {f'e2e-dataset/{name}.csv': 'mr,ref\n"name[X], food[Y]",One.\n"name[X], food[Y]",Two.\n'
     for name in ('trainset', 'devset', 'testset_w_refs')},
    dict.fromkeys(('train', 'validation', 'test'), ('e2e: name[X], food[Y]', 'One.')),
  ),
  'dart': Published(
    {f'dart/data/v1.1.1/dart-v1.1.1-full-{split}.json': json.dumps(DART)
     for split in ('train', 'dev', 'test')},
    dict.fromkeys(('train', 'validation', 'test'),
                  ('dart: Bonn | COUNTRY | Germany && Bonn | RIVER | Rhine', 'Bonn is German.')),
  ),
  'dialogsum': Published(
    {'dialogsum/DialogSum_Data/dialogsum.dev.jsonl':
       lines({'fname': 'f', 'dialogue': TALK, 'summary': 'S.', 'topic': 't'}),
     'dialogsum/DialogSum_Data/dialogsum.test.jsonl':
       lines({'fname': 'f', 'dialogue': TALK, 'summary1': 'S.', 'summary2': 'U.',
              'summary3': 'V.'})},
    dict.fromkeys(('validation', 'test'), (f'summarize: {TALK}', 'S.')),
  ),
  'samsum': Published(
    {f'samsum/{split}.json': json.dumps([{'id': '1', 'summary': 'S.', 'dialogue': TALK}])
     for split in ('train', 'val', 'test')},
    dict.fromkeys(('train', 'validation', 'test'), (f'summarize: {TALK}', 'S.')),
  ),
  'xsum': Published(
    {'xsum/XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json':
       json.dumps({'train': ['0', '12'], 'validation': ['12'], 'test': ['12']}),
     'xsum/bbc-summary-data/12.summary': '[SN]URL[SN]\nhttp://x\n\n[SN]TITLE[SN]\nT\n\n'
       '[SN]FIRST-SENTENCE[SN]\nShort.\n\n[SN]RESTBODY[SN]\nLong\ntext.\n'},
    dict.fromkeys(('train', 'validation', 'test'), ('summarize: Long text.', 'Short.')),
  ),
  'cnn_dailymail': Published(
    {**{f'cnn_dailymail/all_{split}.txt': 'http://web.archive.org/a\n' for split in
        ('train', 'val', 'test')},
     'cnn_dailymail/dailymail/stories/eecd5cf7ae36ca04b253e8f2063682b7a8c7f8b2.story':
       'Long\n\ntext.\n\n@highlight\n\nOne\n\n@highlight\n\nTwo\n'},
    dict.fromkeys(('train', 'validation', 'test'), ('summarize: Long text.', 'One\nTwo')),
  ),
  'wikilingua': Published(
    {'wikilingua/th/train.jsonl': lines({'source': 'S.', 'target': 'T.'}),
     'wikilingua/th/test.jsonl': lines({'source': 'S.', 'target': 'T.', 'references': ['T.']})},
    {'train': ('summarize: S.', 'T.'), 'test': ('summarize: S.', 'T.')}, 'th',
  ),
  **{
    name: Published(
      {f'{name}/{split}.{code}': text for split in ('train', 'validation', 'test')
       for code, text in (('en', 'Hello.\n\n'), (other, 'Salut.\n\n'))},
      dict.fromkeys(('train', 'validation', 'test'),
                    (f'translate English to {language}: Hello.', 'Salut.')))
    for name, other, language in (('wmt14_en_de', 'de', 'German'), ('wmt14_en_fr', 'fr', 'French'),
                                  ('wmt16_en_ro', 'ro', 'Romanian'))
  },
  **{
    f'tatoeba_en_{code}': Published(
      {f'tatoeba/test.{code}.jsonl.gz': lines({'english': 'Hello.', 'foreign': 'X.'})},
      {'test': (f'translate English to {language}: Hello.', 'X.')})
    for code, language in LANGUAGES.items()
  },
  # glue_files.py
  'glue_cola': Published(
    {f'CoLA/{split}.tsv': columns(('gj04', '1', '', 'S.')) for split in ('train', 'dev')},
    dict.fromkeys(('train', 'validation'), ('cola sentence: S.', 'acceptable')),
  ),
  'glue_sst2': glue('SST-2', ('sentence', 'label'), ('S.', '1'), 'sst2 sentence: S.', 'positive'),
  'glue_mrpc': Published(
    {'MRPC/train.tsv': MRPC_FILE, 'MRPC/dev.tsv': MRPC_FILE},
    dict.fromkeys(('train', 'validation'),
                  ('mrpc sentence1: One. sentence2: Two.', 'equivalent'))),
  'glue_qqp': Published(
    {'QQP/train.tsv': QQP_FILE, 'QQP/dev.tsv': QQP_FILE},
    dict.fromkeys(('train', 'validation'), ('qqp question1: A? question2: B?', 'not_duplicate'))),
  'glue_stsb': glue('STS-B', ('index', *PAIR, 'score'), ('0', 'One.', 'Two.', '3.25'),
                    'stsb sentence1: One. sentence2: Two.', '3.2'),
  'glue_mnli': Published(
    {f'MNLI/{name}.tsv': columns(('index', *PAIR, 'label1', 'gold_label'),
                                 ('0', 'P.', 'H.', 'neutral', 'entailment'))
     for name in ('train', 'dev_matched')},
    dict.fromkeys(('train', 'validation'), (f'mnli {SAID}', 'entailment'))),
  'glue_qnli': glue('QNLI', ('index', 'question', 'sentence', 'label'),
                    ('0', 'Q?', 'S.', 'not_entailment'), 'qnli question: Q? sentence: S.',
                    'not_entailment'),
  'glue_rte': glue('RTE', ('index', *PAIR, 'label'), ('0', 'One.', 'Two.', 'entailment'),
                   'rte sentence1: One. sentence2: Two.', 'entailment'),
  'glue_wnli': glue('WNLI', ('index', *PAIR, 'label'), ('0', 'One.', 'Two.', '1'),
                    'wnli sentence1: One. sentence2: Two.', 'entailment'),
  'glue_mrpc_from_qqp': Published(
    {'QQP/train.tsv': QQP_FILE, 'QQP/dev.tsv': QQP_FILE, 'MRPC/dev.tsv': MRPC_FILE},
    {'train': ('qqp question1: A? question2: B?', 'not_duplicate'),
     'test': ('qqp question1: One. question2: Two.', 'duplicate')}),
  'glue_qqp_from_mrpc': Published(
    {'MRPC/train.tsv': MRPC_FILE, 'MRPC/dev.tsv': MRPC_FILE, 'QQP/dev.tsv': QQP_FILE},
    {'train': ('mrpc sentence1: One. sentence2: Two.', 'equivalent'),
     'test': ('mrpc sentence1: A? sentence2: B?', 'not_equivalent')}),
  'super_glue_boolq': super_glue('BoolQ', {'question': 'is it', 'passage': 'It is.', 'idx': 0,
    'label': True}, 'boolq passage: It is. question: is it', 'True'),
  'super_glue_cb': super_glue('CB', {**NLI, 'label': 'neutral', 'idx': 0}, f'cb {SAID}', 'neutral'),
  'super_glue_copa': super_glue('COPA', {'premise': 'P.', 'choice1': 'A.', 'choice2': 'B.',
    'question': 'cause', 'label': 1, 'idx': 0},
    'copa choice1: A. choice2: B. premise: P. question: cause', 'choice2'),
  'super_glue_multirc': super_glue('MultiRC', MULTIRC,
    'multirc question: Q? answer: A paragraph: One. Two.', 'True'),
  'super_glue_record': super_glue('ReCoRD', RECORD,
    'record query: The @placeholder sang. entities: Ann, Bob passage: Ann met Bob.', 'Bob'),
  'super_glue_rte': super_glue('RTE', {**NLI, 'label': 'entailment', 'idx': 0}, f'rte {SAID}',
    'entailment'),
  'super_glue_wic': super_glue('WiC', {'word': 'w', 'sentence1': 'One.', 'sentence2': 'Two.',
    'idx': 0, 'label': False, 'version': 1.1}, 'wic sentence1: One. sentence2: Two. word: w',
    'False'),
  'super_glue_wsc': super_glue('WSC', WSC, 'wsc: Ann ran as *she* hid', 'Ann'),
}  # fmt: skip
