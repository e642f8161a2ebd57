"""Sets in many languages: NLI, paraphrase, choice, topic, sentiment, names. Variants are languages.

Formats are those of the English sets that they go with, so that a prompt tuned on one can be
measured on the others: `mnli:xnli`, `copa:xcopa`, `sib200.eng_Latn:all`.
"""

from prompt_jax.tasks import glue, readers, super_glue
from prompt_jax.tasks.data_set import DataSet, listed
from prompt_jax.tasks.formats import Format, classification, entities, reference

XNLI = listed('ar bg de el en es fr hi ru sw th tr ur vi zh')
PAWSX = listed('de en es fr ja ko zh')
XCOPA = listed('et ht id it qu sw ta th tr vi zh')
# As in XTREME (Hu et al. 2020).
WIKIANN = listed(
  'af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw '
  'ta te th tl tr ur vi yo zh'
)
# 40 of the 205 languages.
SIB200 = listed(
  'eng_Latn deu_Latn fra_Latn spa_Latn por_Latn ita_Latn ron_Latn pol_Latn ces_Latn hun_Latn '
  'slv_Latn srp_Cyrl ukr_Cyrl rus_Cyrl bul_Cyrl ell_Grek tur_Latn arb_Arab heb_Hebr pes_Arab '
  'hin_Deva ben_Beng tam_Taml zho_Hans jpn_Jpan kor_Hang tha_Thai vie_Latn ind_Latn swh_Latn '
  'hau_Latn yor_Latn amh_Ethi fin_Latn est_Latn nld_Latn swe_Latn cat_Latn eus_Latn '
  'quy_Latn'
)
NUSAX = listed(
  'acehnese balinese banjarese buginese english indonesian javanese madurese minangkabau ngaju '
  'sundanese toba_batak'
)
MASAKHANEWS = listed('amh eng fra hau ibo lin lug orm pcm run sna som swa tir xho yor')
AMERICAS = listed('aym bzd cni gn hch nah oto quy shp tar')
# The languages of SIB-200 that Belebele has under the same code.
BELEBELE = tuple(v for v in SIB200 if v not in ('quy_Latn',))
NEWS = {'train': '{variant}/train.tsv', 'validation': '{variant}/dev.tsv',
        'test': '{variant}/test.tsv'}  # fmt: skip
PAIRS = {'0': 'not_equivalent', '1': 'equivalent'}
ABOUT_NEWS = 'MasakhaNEWS (Adelani et al. 2023), 16 languages, AFL 3.0'
GET_NEWS = 'git clone https://github.com/masakhane-io/masakhane-news && mv masakhane-news/data'

SETS = {
  'xnli': DataSet(
    classification('xnli hypothesis: {hypothesis} premise: {premise}',
                   'entailment|neutral|contradiction'),
    'nli',
    'XNLI (Conneau et al. 2018), CC BY-NC 4.0; its training sets are translations of MNLI',
    variants=XNLI,
    files={
      'train': 'XNLI-MT-1.0/multinli/multinli.train.{variant}.tsv',
      'validation': 'XNLI-1.0/xnli.dev.tsv',
      'test': 'XNLI-1.0/xnli.test.tsv',
    },
    columns={
      'premise': 'sentence1',
      'hypothesis': ('sentence2', 'hypo'),
      'label': ('gold_label', 'label'),
    },
    words={'contradictory': 'contradiction'},
    keep=lambda row, variant: row.get('language', variant) == variant,
    get='curl -LO https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip && unzip XNLI-1.0.zip '
    '(XNLI-MT-1.0.zip likewise, to train)',
  ),
  'pawsx': DataSet(
    classification('pawsx sentence1: {sentence1} sentence2: {sentence2}',
                   'not_equivalent|equivalent'),
    'paraphrase',
    "PAWS-X (Yang et al. 2019) with MRPC's label words; rows without a label are left out",
    variants=PAWSX,
    place='x-final',
    files={
      'train': ('{variant}/translated_train.tsv', '{variant}/train.tsv'),
      'validation': '{variant}/dev_2k.tsv',
      'test': '{variant}/test_2k.tsv',
    },
    words=PAIRS,
    keep=lambda row, variant: row['label'] in PAIRS.values(),
    get='curl -O https://storage.googleapis.com/paws/pawsx/x-final.tar.gz && '
    'tar xzf x-final.tar.gz',
    tfds='paws_x_wiki/{variant}:1.0.0',
  ),
  'xcopa': DataSet(
    super_glue.FORMATS['copa'],
    'choice',
    'XCOPA (Ponti et al. 2020), CC BY 4.0; train on copa',
    variants=XCOPA,
    files={'validation': 'data/{variant}/val.{variant}.jsonl',
           'test': 'data/{variant}/test.{variant}.jsonl'},
    get='git clone https://github.com/cambridgeltl/xcopa',
  ),
  'wikiann': DataSet(
    Format('tag: {tokens}', None, ('span_f1',), entities),
    'tagging',
    'names of persons, places, organisations in Wikipedia (Rahimi et al. 2019)',
    variants=WIKIANN,
    files={'train': '{variant}/train', 'validation': '{variant}/dev', 'test': '{variant}/test'},
    read=readers.wikiann,
    get='the archive of a language, linked at https://github.com/afshinrahimi/mmner, as {variant}/',
  ),
  'sib200': DataSet(
    classification(
      'sib200 text: {text}',
      'science/technology|travel|politics|sports|health|entertainment|geography',
    ),
    'topic',
    'SIB-200 (Adelani et al. 2024), parallel sentences, CC BY-SA 4.0',
    variants=SIB200,
    files={s: f'data/annotated/{{variant}}/{name}.tsv'
           for s, name in (('train', 'train'), ('validation', 'dev'), ('test', 'test'))},
    columns={'label': 'category', 'id': 'index_id'},
    get='git clone https://github.com/dadelani/sib-200 sib200',
  ),
  'nusax_senti': DataSet(
    classification('nusax text: {text}', 'positive|neutral|negative'),
    'sentiment',
    'NusaX (Winata et al. 2023), languages of Indonesia, parallel, CC BY-SA 4.0',
    variants=NUSAX,
    files={s: f'datasets/sentiment/{{variant}}/{name}.csv'
           for s, name in (('train', 'train'), ('validation', 'valid'), ('test', 'test'))},
    get='git clone https://github.com/IndoNLP/nusax nusax_senti',
  ),
  'masakhanews': DataSet(
    classification(
      'masakhanews headline: {headline} text: {text}',
      'business|entertainment|health|politics|religion|sports|technology',
      'f1_macro',
      'accuracy',
    ),
    'topic',
    ABOUT_NEWS,
    variants=MASAKHANEWS,
    files=NEWS,
    columns={'label': 'category'},
    get=f'{GET_NEWS} masakhanews',
  ),
  'masakhanews_headline': DataSet(
    Format('headline: {text}', None, ('bleu',), reference),
    'summarisation',
    f'the headline of an article of {ABOUT_NEWS}',
    variants=MASAKHANEWS,
    place='masakhanews',
    files=NEWS,
    columns={'references': 'headline'},
    get=f'{GET_NEWS} masakhanews',
  ),
  'americas_nli': DataSet(
    glue.FORMATS['mnli'],
    'nli',
    'AmericasNLI (Ebrahimi et al. 2022), ten languages of the Americas; train on mnli',
    variants=AMERICAS,
    files={'validation': 'dev.tsv', 'test': 'test.tsv'},
    keep=lambda row, variant: row['language'] == variant,
    get='git clone https://github.com/nala-cub/AmericasNLI americas_nli',
  ),
  'belebele': DataSet(
    classification(
      'belebele choice1: {mc_answer1} choice2: {mc_answer2} choice3: {mc_answer3} '
      'choice4: {mc_answer4} passage: {flores_passage} question: {question}',
      'choice1|choice2|choice3|choice4',
    ),
    'choice',
    'Belebele (Bandarkar et al. 2024), reading with four answers, CC BY-SA 4.0',
    variants=BELEBELE,
    place='Belebele',
    files={'test': 'data/{variant}.jsonl'},
    columns={'label': 'correct_answer_num'},
    words={str(i): f'choice{i}' for i in (1, 2, 3, 4)},
    get='curl -LO https://dl.fbaipublicfiles.com/belebele/Belebele.zip && unzip Belebele.zip',
  ),
}  # fmt: skip
