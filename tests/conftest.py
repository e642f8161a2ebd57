"""One compilation cache for all test workers; compiling is most of the suite's time."""

import os
import pathlib
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(tempfile.gettempdir()) / 'prompt_jax_test_cache')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
# Programs here run for milliseconds: optimising them costs a third of the suite's time, and the
# newer of XLA's two code generators for CPUs takes four times as long to compile as the older.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')
# Nothing is broadcast over an axis that it lacks, unless the code says so.
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')

# Torch looks for Triton, which crashes the process where TensorFlow was imported before it: both
# carry an LLVM of their own. No test needs it.
sys.modules['triton'] = None  # type: ignore[assignment]

import jax  # noqa: E402 (it reads the variables above)
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def compilation_cache():
  """A run that is told to use none does not turn it off for the tests after it."""
  yield
  jax.config.update('jax_enable_compilation_cache', True)
