"""Text to text: data to text, summaries, translation, simplification.

Every set has the columns of one of three formats (triples or a meaning, a document, a sentence) and
`references`: of several the first is the target, and all are compared with. For E2E and DART each
pair is an example of its own in training.
"""

from prompt_jax.tasks import readers
from prompt_jax.tasks.data_set import DataSet, listed
from prompt_jax.tasks.formats import Format, reference

BLEU = ('bleu', 'rouge')
ROUGE = ('rouge', 'bleu')
SUMMARY = Format('summarize: {document}', None, ROUGE, reference, ('answers',))
LANGUAGES = {
  'ara': 'Arabic', 'ces': 'Czech', 'cmn': 'Chinese', 'deu': 'German', 'ell': 'Greek',
  'fra': 'French', 'heb': 'Hebrew', 'hin': 'Hindi', 'hun': 'Hungarian', 'ind': 'Indonesian',
  'ita': 'Italian', 'jpn': 'Japanese', 'kor': 'Korean', 'pol': 'Polish', 'por': 'Portuguese',
  'ron': 'Romanian', 'rus': 'Russian', 'slv': 'Slovenian', 'spa': 'Spanish', 'srp': 'Serbian',
  'swh': 'Swahili', 'tur': 'Turkish', 'ukr': 'Ukrainian', 'vie': 'Vietnamese',
}  # fmt: skip
# The 18 languages of WikiLingua (Ladhak et al. 2020).
WIKILINGUA = listed('ar cs de en es fr hi id it ja ko nl pt ru th tr vi zh')
TOPICS = {'train': 'train.json', 'validation': 'val.json', 'test': 'test.json'}
E2E_FILES = 'https://github.com/tuetschek/e2e-dataset'


def _data(name: str, about: str, **rest) -> DataSet:
  form = Format(f'{name}: {{triples}}', None, BLEU, reference, ('answers',))
  return DataSet(form, 'data_to_text', about, **rest)


def _summary(about: str, document: str = 'document', summary: str = 'summary', **rest) -> DataSet:
  """A set whose columns of text and summary are called so in files and tensorflow-datasets."""
  columns = {'document': document, 'references': summary}
  rest = {'columns': columns, 'tfds_columns': columns, **rest}
  return DataSet(SUMMARY, 'summarisation', about, **rest)


def _translation(source: str, target: str, **rest) -> DataSet:
  template = f'translate {source} to {target}: {{source}}'
  return DataSet(Format(template, None, ('bleu',), reference, ('answers',)), 'translation', **rest)


def _wmt(year: int, target: str, code: str) -> DataSet:
  """Files as the archives of WMT name them; from English, as in T5's and SPoT's mixtures."""
  pair = f'{code}-en'
  return _translation(
    'English',
    target,
    about=f'WMT {year}, English to {target}',
    files={s: f'{s}.en>{s}.{code}' for s in ('train', 'validation', 'test')},
    read=readers.parallel,
    get=f'plain texts {{train,validation,test}}.{{en,{code}}} of '
    f'https://www.statmt.org/wmt{year % 100}/translation-task.html',
    tfds=f'wmt{year % 100}_translate/{pair}:1.0.0',
    tfds_columns={'source': 'en', 'references': code},
  )


SETS = {
  'webnlg2017': _data('webnlg', 'WebNLG challenge 2017, CC BY-NC-SA 4.0'),
  'webnlg': _data(
    'webnlg',
    'WebNLG 3.0 (2020), English, CC BY-NC-SA 4.0',
    place='webnlg-dataset/release_v3.0/en',
    files={'train': 'train', 'validation': 'dev', 'test': 'test'},
    read=readers.webnlg,
    get='git clone https://gitlab.com/shimorina/webnlg-dataset',
  ),
  'e2e': _data(
    'e2e',
    'E2E NLG challenge (Novikova et al. 2017), restaurants, CC BY-SA 4.0',
    place='e2e-dataset',
    files={'train': 'trainset.csv', 'validation': 'devset.csv', 'test': 'testset_w_refs.csv'},
    columns={'triples': 'mr', 'references': 'ref'},
    together='mr',
    get=f'git clone {E2E_FILES}',
  ),
  'dart': _data(
    'dart',
    'DART (Nan et al. 2021), triples of tables and WebNLG, MIT',
    place='dart/data/v1.1.1',
    files={s: f'dart-v1.1.1-full-{name}.json'
           for s, name in (('train', 'train'), ('validation', 'dev'), ('test', 'test'))},
    read=readers.dart,
    get='git clone https://github.com/Yale-LILY/dart',
  ),
  'asset': DataSet(
    Format('simplify: {source}', None, BLEU, reference, ('answers',)),
    'generation',
    'ASSET (Alva-Manchego et al. 2020): sentences made simple, CC BY-NC 4.0',
  ),
  'dialogsum': DataSet(
    Format('summarize: {dialogue}', None, ROUGE, reference, ('answers',)),
    'summarisation',
    'DialogSum (Chen et al. 2021), CC BY-NC-SA 4.0',
    files={s: f'DialogSum_Data/dialogsum.{name}.jsonl'
           for s, name in (('train', 'train'), ('validation', 'dev'), ('test', 'test'))},
    read=readers.dialogsum,
    get='git clone https://github.com/cylnlp/dialogsum',
  ),
  'samsum': _summary('SAMSum (Gliwa et al. 2019), CC BY-NC-ND 4.0', 'dialogue',
    files=TOPICS, read=readers.json_array, tfds='samsum:1.0.0',
    get='corpus.7z of https://arxiv.org/src/1911.12237v2/anc'),
  'xsum': _summary('XSum (Narayan et al. 2018): a sentence for an article of the BBC',
    files=dict.fromkeys(
      ('train', 'validation', 'test'), 'XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json'),
    read=readers.xsum, columns={}, tfds='xsum:1.1.0',
    get='XSUM-EMNLP18-Summary-Data-Original.tar.gz and the list of splits, linked at '
    'https://github.com/EdinburghNLP/XSum'),
  'cnn_dailymail': _summary('CNN and Daily Mail (See et al. 2017): highlights of an article',
    'article', 'highlights', read=readers.stories, columns={},
    files={'train': 'all_train.txt', 'validation': 'all_val.txt', 'test': 'all_test.txt'},
    get='cnn_stories.tgz and dailymail_stories.tgz of https://cs.nyu.edu/~kcho/DMQA, and url_lists '
    'of https://github.com/abisee/cnn-dailymail', tfds='cnn_dailymail:3.1.0'),
  'aeslc': _summary('AESLC (Zhang and Tetreault 2019): subjects of e-mails', 'email_body',
    'subject_line', tfds='aeslc:1.0.0'),
  'billsum': _summary('BillSum (Kornilova and Eidelman 2019): laws', 'text', tfds='billsum:3.0.0'),
  'gigaword': _summary('Gigaword (Rush et al. 2015): headlines', tfds='gigaword:1.2.0'),
  'multi_news': _summary('Multi-News (Fabbri et al. 2019): several articles',
    tfds='multi_news:1.0.0'),
  'newsroom': _summary('Newsroom (Grusky et al. 2018)', 'text', tfds='newsroom:1.0.0'),
  'wikilingua': DataSet(
    Format('summarize: {source}', None, ('sp_rouge', 'bleu'), reference, ('answers',)),
    'summarisation',
    'WikiLingua as GEM has it: the columns source and references (or target); WikiLingua-0 is '
    'wikilingua.en:all, CC BY-NC-SA 3.0',
    variants=WIKILINGUA,
    files={s: f'{{variant}}/{s}.jsonl' for s in ('train', 'validation', 'test')},
    columns={'references': ('references', 'target')},
    get='the sets of GEM/wiki_lingua as {variant}/train.jsonl and so on',
  ),
  'wmt14_en_de': _wmt(2014, 'German', 'de'),
  'wmt14_en_fr': _wmt(2014, 'French', 'fr'),
  'wmt16_en_ro': _wmt(2016, 'Romanian', 'ro'),
  **{
    f'tatoeba_en_{code}': _translation(
      'English', language, about=f'Tatoeba, English to {language}, CC BY 2.0 FR', place='tatoeba',
      files={'test': f'test.{code}.jsonl.gz'},
      columns={'source': 'english', 'references': 'foreign'},
    )
    for code, language in LANGUAGES.items()
  },
}  # fmt: skip
