"""Extractive question answering in T5's text format: SQuAD, MRQA, and sets of other languages.

MRQA's (Fisch et al. 2019) variants are domains: `mrqa.SQuAD:all` trains on one and measures all.
"""

from prompt_jax.tasks import readers
from prompt_jax.tasks.data_set import DataSet, listed
from prompt_jax.tasks.formats import Format, answer, question, span

QA = Format(
  'question: {question} context: {context}', None, ('squad',), span, ('answers',), long='context'
)
IN_DOMAIN = ('SQuAD', 'NewsQA', 'TriviaQA-web', 'SearchQA', 'HotpotQA', 'NaturalQuestionsShort')
OUT_OF_DOMAIN = (
  'BioASQ', 'DROP', 'DuoRC.ParaphraseRC', 'RACE', 'RelationExtraction', 'TextbookQA',
)  # fmt: skip
XQUAD = listed('en ar de el es hi ro ru th tr vi zh')
MLQA = listed('ar de en es hi vi zh')
TYDI = listed('arabic bengali english finnish indonesian korean russian swahili telugu')
RELEASE = 'https://s3.us-east-2.amazonaws.com/mrqa/release/v2'

SETS = {
  'squad': DataSet(
    QA,
    'qa',
    'SQuAD 1.1 (Rajpurkar et al. 2016), CC BY-SA 4.0',
    files={'train': 'train-v1.1.json', 'validation': 'dev-v1.1.json'},
    read=readers.squad,
    get='curl -O https://rajpurkar.github.io/SQuAD-explorer/dataset/train-v1.1.json -O '
    'https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json',
    tfds='squad/v1.1:3.0.0',
    tfds_splits={'train': 'train', 'validation': 'validation'},
  ),
  'mrqa': DataSet(
    QA,
    'qa',
    'MRQA 2019: six domains to train on, six more to measure, CC BY-SA and others',
    variants=(*IN_DOMAIN, *OUT_OF_DOMAIN),
    files={'train': 'train/{variant}.jsonl.gz', 'validation': 'dev/{variant}.jsonl.gz'},
    read=readers.mrqa,
    get=f'curl {RELEASE}/dev/{{variant}}.jsonl.gz --create-dirs -o dev/{{variant}}.jsonl.gz '
    f'(train/ likewise)',
  ),
  'xquad': DataSet(
    QA,
    'qa',
    'XQuAD (Artetxe et al. 2020), parallel in 12 languages, CC BY-SA 4.0',
    variants=XQUAD,
    files={'test': 'xquad.{variant}.json'},
    read=readers.squad,
    get='git clone https://github.com/google-deepmind/xquad',
    tfds='xquad/{variant}:3.0.0',
    tfds_splits={'test': 'test'},
  ),
  'mlqa': DataSet(
    QA,
    'qa',
    'MLQA (Lewis et al. 2020), question and context in one language, CC BY-SA 3.0',
    variants=MLQA,
    place='MLQA_V1',
    files={
      'validation': 'dev/dev-context-{variant}-question-{variant}.json',
      'test': 'test/test-context-{variant}-question-{variant}.json',
    },
    read=readers.squad,
    get='curl -O https://dl.fbaipublicfiles.com/MLQA/MLQA_V1.zip && unzip MLQA_V1.zip',
    tfds='mlqa/{variant}:1.0.0',
    tfds_splits={'validation': 'validation', 'test': 'test'},
  ),
  'tydiqa_goldp': DataSet(
    QA,
    'qa',
    'TyDi QA, gold passages (Clark et al. 2020), Apache 2.0',
    variants=TYDI,
    files={
      'train': 'tydiqa-goldp-v1.1-train.json',
      'validation': 'tydiqa-goldp-v1.1-dev.json',
    },
    read=readers.squad,
    keep=lambda row, variant: row['id'].startswith(f'{variant}-'),
    get='curl -O https://storage.googleapis.com/tydiqa/v1.1/tydiqa-goldp-v1.1-train.json -O '
    'https://storage.googleapis.com/tydiqa/v1.1/tydiqa-goldp-v1.1-dev.json',
  ),
  'restaurant8k': DataSet(
    Format('question: {question} context: {context}', None, ('squad',), answer, ('answers',)),
    'qa',
    'slots of restaurant bookings (Coope et al. 2020) asked as questions, CC BY 4.0',
  ),
  'squad_qg': DataSet(
    Format('generate question: {sentence}', None, ('bleu', 'rouge'), question),
    'generation',
    'the question that a sentence of SQuAD answers (Du et al. 2017), CC BY-SA 4.0',
  ),
}
