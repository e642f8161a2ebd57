"""Named flags that set a gin macro, by verb.

`--steps 300` is a shortcut for `--gin.STEPS=300`. What has no flag is reached with `--gin_file` and
`--gin.`.
"""

import dataclasses
from typing import Any

from prompt_jax.cli.flag_types import (
  at_least_one,
  at_least_zero,
  listed,
  mesh,
  seed,
  seeds,
)


@dataclasses.dataclass(frozen=True)
class Flag:
  """A shortcut: `--name VALUE` sets the gin macro `macro`."""

  name: str
  macro: str
  help: str
  type: Any = str
  metavar: str | None = None
  many: bool = False
  switch: bool = False  # given without a value
  several: bool = False  # one or more values after the flag


MODEL = Flag('model', 'MODEL', '"embedded" (the small model in this package), a model folder (ours '
             'or of Hugging Face), or a T5X checkpoint')  # fmt: skip
VOCABULARY = Flag('vocabulary', 'VOCABULARY', 'a SentencePiece model, or "bytes", where the model '
                  'has none (T5X)', metavar='FILE')  # fmt: skip
DEVICE = Flag(
  'device', 'DEVICE', 'cpu, gpu or tpu; "auto" takes the best one present', metavar='KIND'
)
COMPILATION_CACHE = Flag(
  'compilation_cache', 'COMPILATION_CACHE', 'folder for compiled programs, or "off"', metavar='DIR'
)
PROFILE = Flag('profile', 'PROFILE', 'write a trace of a few steps', switch=True)
TASK = Flag('task', 'TASK', 'a task by name (prompt-jax tasks lists them); several: a mixture',
            metavar='NAME', several=True)  # fmt: skip
SHOTS = Flag('shots', 'SHOTS', 'train on so many examples of each class', at_least_one, 'K')
DATA = Flag('data', 'DATA', 'a TSV, CSV or JSONL file with text and label (or inputs and targets), '
            'or hf:REPO of the Hugging Face hub', metavar='FILE')  # fmt: skip
FOLDER = Flag('folder', 'FOLDER', 'that holds the folders of data sets', metavar='DIR')
MODULE = Flag('module', 'MODULES', 'a Python module that registers seqio tasks; repeatable',
              metavar='NAME', many=True)  # fmt: skip
COLUMNS = (
  Flag('text', 'TEXT', 'column of the text (several: a,b), if not named so', metavar='COLUMN'),
  Flag('label', 'LABEL', 'column of the label', metavar='COLUMN'),
  Flag('inputs', 'INPUTS', 'column of the inputs of a text-to-text file', metavar='COLUMN'),
  Flag('targets', 'TARGETS', 'column of its targets', metavar='COLUMN'),
)
BATCH = Flag('batch_size', 'BATCH_SIZE', 'examples a step', at_least_one, 'N')
INPUT_LENGTH = Flag('input_length', 'INPUT_LENGTH', 'tokens of an input', at_least_one, 'N')
TARGET_LENGTH = Flag('target_length', 'TARGET_LENGTH', 'tokens of a target', at_least_one, 'N')
OUTPUT = Flag('output', 'OUTPUT', 'folder for results; the same command resumes there',
              metavar='DIR')  # fmt: skip
STEPS = Flag('steps', 'STEPS', 'training steps', at_least_one, 'N')
SEED = Flag('seed', 'SEED', 'seed of everything random', seed, 'N')
MESH = Flag('mesh', 'MESH', 'devices along the axes data and model', mesh, 'DATAxMODEL')
LAYOUT = Flag(
  'layout',
  'LAYOUT',
  'how the model lies on them',
  metavar='data|tensor|sequence|fully_sharded|2d',
)
SLICES = Flag('slices', 'SLICES', 'slices or hosts that a slower network joins, over which data is '
              'cut', at_least_one, 'N')  # fmt: skip
RATE = Flag('learning_rate', 'LEARNING_RATE', 'learning rate', float, 'X')

# What a run learns from; `train` and `population` share it.
EXAMPLES_OF_A_RUN = (
  MODEL, VOCABULARY, TASK, FOLDER, MODULE, DATA,
  Flag('validation', 'VALIDATION', 'a file to select the best prompt on', metavar='FILE'),
  Flag('test', 'TEST', 'a file for the final score', metavar='FILE'),
  *COLUMNS,
)  # fmt: skip
METHOD = Flag('method', 'METHOD', 'rank the labels, decode what can only be a label, or generate '
              'text', metavar='rank|constrained|generate')  # fmt: skip
NORMALIZE = Flag('normalize', 'NORMALIZE', 'ranked labels by their score a token',
                 metavar='none|tokens')  # fmt: skip
LENGTH = Flag('length', 'PROMPT_LENGTH', 'rows of the prompt', at_least_one, 'N')

SHORTCUTS: dict[str, tuple[Flag, ...]] = {
  'train': (
    *EXAMPLES_OF_A_RUN, OUTPUT, STEPS, BATCH, RATE,
    Flag('pack', 'PACK', 'several examples a row; for data of very unlike lengths', switch=True),
    LENGTH, INPUT_LENGTH, TARGET_LENGTH, SEED,
    Flag('seeds', 'SEEDS', 'several seeds, with mean and standard deviation', seeds, '0,1,2'),
    SHOTS,
    Flag('draw', 'DRAW', 'seed of the examples that --shots draws, usually 0 to 4', seed, 'N'),
    Flag('train', 'TRAINABLE', '"prompt" (the default), "all" for model tuning, or a pattern of '
         'parameter paths; repeatable', metavar='PATTERN', many=True),
    DEVICE, COMPILATION_CACHE, PROFILE, MESH, LAYOUT, SLICES,
  ),
  'population': (
    *EXAMPLES_OF_A_RUN, OUTPUT, STEPS, BATCH, RATE, LENGTH, INPUT_LENGTH, TARGET_LENGTH,
    Flag('seeds', 'SEEDS', 'one prompt of each setting for each seed', seeds, '0,1,2'),
    Flag('learning_rates', 'LEARNING_RATES', 'several learning rates',
         listed(float, 'a list of numbers such as 0.3,1'), 'X,Y'),
    Flag('lengths', 'LENGTHS', 'several numbers of prompt rows',
         listed(at_least_one, 'a list of whole numbers such as 20,100'), 'N,M'),
    Flag('inits', 'INITS', 'several initialisers: files of gin/inits', listed(str, ''), 'A,B'),
    Flag('halving', 'HALVING', 'steps at which the worse half stops',
         listed(at_least_one, 'a list of steps such as 200,400'), 'N,M'),
    Flag('at_once', 'AT_ONCE', 'most prompts computed together, to save memory', at_least_one,
         'N'),
    DEVICE, COMPILATION_CACHE, PROFILE, MESH, LAYOUT, SLICES,
  ),
  'sweep': (
    OUTPUT,
    Flag('together', 'TOGETHER', 'train what shares a model in one program (population)',
         switch=True),
    Flag('cluster', 'CLUSTER', 'where runs go: one after the other here, or a job each',
         metavar='local|slurm|xpk'),
    Flag('topology', 'TOPOLOGY', 'plan for such a TPU slice before anything starts, as v5e-16; '
         'default: for where runs go (docs/scale.md)', metavar='NAME'),
    Flag('too_large', 'TOO_LARGE', 'what to do with runs that do not fit by the plan',
         metavar='refuse|skip|run'),
    Flag('dry_run', 'DRY_RUN', 'check and print everything, run nothing', switch=True),
    Flag('job', 'JOB', 'run one of them only, here: what a job of a cluster does', metavar='NAME'),
  ),
  'eval': (
    MODEL, VOCABULARY, TASK, FOLDER, MODULE, DATA, *COLUMNS,
    Flag('prompt_file', 'PROMPT_FILE', 'a trained prompt; several: also their vote',
         metavar='FILE', several=True),
    Flag('split', 'SPLIT', 'which split to measure', metavar='NAME'),
    METHOD, NORMALIZE,
    OUTPUT, BATCH, INPUT_LENGTH, TARGET_LENGTH, DEVICE, COMPILATION_CACHE, MESH, LAYOUT, SLICES,
  ),
  'infer': (
    MODEL, VOCABULARY,
    Flag('prompt_file', 'PROMPT_FILE', 'a trained prompt', metavar='FILE'),
    Flag('input', 'INPUT', 'a file with one text a line, or JSONL with "text" or "inputs"',
         metavar='FILE'),
    Flag('text', 'TEXT', 'its column (several: a,b)', metavar='COLUMN'),
    Flag('output', 'OUTPUT', 'a JSONL file for the answers', metavar='FILE'),
    METHOD, NORMALIZE, BATCH, INPUT_LENGTH, TARGET_LENGTH, DEVICE, COMPILATION_CACHE, MESH, LAYOUT,
    SLICES,
  ),
  'pretrain': (
    Flag('corpus', 'CORPUS', 'text, one document a paragraph (.txt or .xz)', metavar='FILE'),
    Flag('model', 'MODEL', 'a model folder to go on from; without it a new one is made',
         metavar='DIR'),
    Flag('vocabulary', 'VOCABULARY', 'a SentencePiece model; without it one is trained',
         metavar='FILE'),
    OUTPUT,
    Flag('steps', 'STEPS', 'steps of span corruption; 0 for none', at_least_zero, 'N'),
    Flag('adapt_steps', 'ADAPT_STEPS', 'steps of prefix LM', at_least_one, 'N'),
    BATCH, RATE, INPUT_LENGTH, TARGET_LENGTH, SEED, DEVICE, COMPILATION_CACHE,
  ),
  'plan': (
    Flag('topology', 'TOPOLOGY', 'TPU slices, as v5e-16,v4-8; or here: this machine',
         listed(str, ''), 'NAME,NAME'),
    Flag('step', 'STEP', 'train, eval (ranking labels), decode; several: train,eval',
         listed(str, ''), 'NAME,NAME'),
    DEVICE, MESH, LAYOUT, SLICES,
    Flag('weights', 'WEIGHTS', 'storage of frozen weights', metavar='bfloat16|int8|float32'),
    Flag('batch', 'BATCH_SIZE', 'examples a step', at_least_one, 'N'),
    Flag('inputs', 'INPUT_LENGTH', 'tokens of an input', at_least_one, 'N'),
    Flag('targets', 'TARGET_LENGTH', 'tokens of a target', at_least_one, 'N'),
    LENGTH,
    Flag('microbatches', 'MICROBATCHES', 'parts of a training batch', at_least_one, 'N'),
    Flag('query_chunk', 'QUERY_CHUNK', 'queries that attend at a time', at_least_one, 'N'),
    Flag('scores', 'SCORES_DTYPE', 'dtype of attention scores', metavar='float32|bfloat16'),
    Flag('attention', 'ATTENTION', "of the encoder's rows; fused: a TPU kernel, cudnn: of GPUs",
         metavar='plain|fused|cudnn'),
    Flag('remat', 'REMAT', 'what the backward pass computes again', metavar='cheap|all'),
    Flag('fit', 'FIT', 'find the first way to run it that fits, of what is not given', switch=True),
    Flag('search', 'SEARCH', 'find the fastest ways, of what is not given, and the smallest slice '
         'that fits', switch=True),
    Flag('output', 'OUTPUT', 'a .json or .md file', metavar='FILE'),
  ),
  'inspect': (),
  'compare': (),
  'import': (),
  'export': (),
  'tasks': (),
  'report': (),
  'convert': (
    Flag('to', 'TO', 'what to write', metavar='native|t5x|hf'),
    VOCABULARY,
    Flag('dtype', 'DTYPE', 'of the weights that are written, if not as they are stored',
         metavar='float32|bfloat16'),
    Flag('verify', 'VERIFY', 'compare logits before and after, or only the values, which needs '
         'no memory for the model', metavar='logits|values'),
    DEVICE,
  ),
}  # fmt: skip
