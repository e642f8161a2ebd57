"""English classification: GLUE, SuperGLUE and other sets as JSON Lines, NLI beside them.

Columns of JSON Lines are those of GLUE and SuperGLUE, or of the original data; formats are T5's.
"""

from prompt_jax.tasks import glue, readers, super_glue
from prompt_jax.tasks.data_set import DataSet
from prompt_jax.tasks.formats import Format, candidate, classification, classify_spaced

NLI = 'entailment|neutral|contradiction'
ANLI = {'e': 'entailment', 'n': 'neutral', 'c': 'contradiction'}

SETS = {
  'rte': DataSet(super_glue.FORMATS['rte'], 'nli', 'RTE, 2-way (SuperGLUE)'),
  'cb': DataSet(super_glue.FORMATS['cb'], 'nli', 'CommitmentBank, 3-way (SuperGLUE)'),
  'copa': DataSet(super_glue.FORMATS['copa'], 'choice', 'causes and effects (SuperGLUE), BSD'),
  'boolq': DataSet(super_glue.FORMATS['boolq'], 'qa', 'yes or no (SuperGLUE), CC BY-SA 3.0'),
  'wic': DataSet(super_glue.FORMATS['wic'], 'word_sense', 'words in context, CC BY-NC 4.0'),
  'sst2': DataSet(glue.FORMATS['sst2'], 'sentiment', 'Stanford Sentiment Treebank, 2-way'),
  'mrpc': DataSet(glue.FORMATS['mrpc'], 'paraphrase', 'Microsoft paraphrases, research'),
  'mnli': DataSet(glue.FORMATS['mnli'], 'nli', 'MultiNLI, 3-way'),
  'trec': DataSet(
    classification(
      'trec question: {question}', 'abbreviation|description|entity|human|location|number'
    ),
    'topic',
    'what a question asks for (Li and Roth 2002)',
  ),
  'ag_news': DataSet(
    classification(
      'ag_news title: {title} description: {description}', 'World|Sports|Business|Sci/Tech'
    ),
    'topic',
    'AG news, non-commercial',
  ),
  # Its 77 labels are read from the training file.
  'banking77': DataSet(
    Format('banking77 text: {text}', (), ('accuracy', 'f1_macro'), classify_spaced),
    'intent',
    '77 intents of bank customers, CC BY 4.0',
    files={'train': 'banking_data/train.csv', 'test': 'banking_data/test.csv'},
    columns={'label': 'category'},
    get='git clone https://github.com/PolyAI-LDN/task-specific-datasets banking77',
  ),
  'snli': DataSet(
    classification('snli hypothesis: {hypothesis} premise: {premise}', NLI),
    'nli',
    'SNLI (Bowman et al. 2015), CC BY-SA 4.0; pairs without a majority are left out',
    files={
      'train': 'snli_1.0_train.jsonl',
      'validation': 'snli_1.0_dev.jsonl',
      'test': 'snli_1.0_test.jsonl',
    },
    columns={'premise': 'sentence1', 'hypothesis': 'sentence2', 'label': 'gold_label'},
    keep=lambda row, variant: row['label'] != '-',
    place='snli_1.0',
    get='curl -LO https://nlp.stanford.edu/projects/snli/snli_1.0.zip && unzip snli_1.0.zip',
    tfds='snli:1.1.0',
  ),
  'anli': DataSet(
    classification('anli hypothesis: {hypothesis} premise: {premise}', NLI),
    'nli',
    'adversarial NLI (Nie et al. 2020), three rounds, CC BY-NC 4.0',
    variants=('R1', 'R2', 'R3'),
    place='anli_v0.1',
    files={
      'train': '{variant}/train.jsonl',
      'validation': '{variant}/dev.jsonl',
      'test': '{variant}/test.jsonl',
    },
    columns={'premise': 'context', 'id': 'uid'},
    words=ANLI,
    get='curl -LO https://dl.fbaipublicfiles.com/anli/anli_v0.1.zip && unzip anli_v0.1.zip',
    tfds='anli/{variant}:0.1.0',
    tfds_columns={'premise': 'context'},
  ),
  'doc_nli': DataSet(
    classification(
      'doc_nli hypothesis: {hypothesis} premise: {premise}', 'entailment|not_entailment'
    ),
    'nli',
    'DocNLI (Yin et al. 2021): long premises',
    place='DocNLI_dataset',
    files={'train': 'train.json', 'validation': 'dev.json', 'test': 'test.json'},
    read=readers.json_array,
    get='DocNLI_dataset.zip, linked at https://github.com/salesforce/DocNLI',
    tfds='doc_nli:1.0.0',
  ),
  'dpr': DataSet(
    Format('wsc: {sentence}', None, ('exact_match',), candidate),
    'coreference',
    "definite pronouns (Rahman and Ng 2012) in WSC's simple form",
    files={'train': 'train.c.txt', 'test': 'test.c.txt'},
    read=readers.pronouns,
    get='curl -O https://www.hlt.utdallas.edu/~vince/data/emnlp12/train.c.txt -O '
    'https://www.hlt.utdallas.edu/~vince/data/emnlp12/test.c.txt',
    tfds='definite_pronoun_resolution:1.1.0',
    tfds_splits={'train': 'train', 'test': 'test'},
  ),
}  # fmt: skip
