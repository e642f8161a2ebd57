"""One compilation cache for all test workers; compiling is most of the suite's time."""

import gc
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
# Other workers need the other cores, so none compiles a program in parts.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault(
  'XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
)
# Nothing is broadcast over an axis that it lacks, unless the code says so.
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')

# Torch looks for Triton, which crashes the process where TensorFlow was imported before it: both
# carry an LLVM of their own. No test needs it.
sys.modules['triton'] = None  # type: ignore[assignment]

import jax  # noqa: E402 (it reads the variables above)
import pytest  # noqa: E402

# With `--dist loadfile` the suite ends when its last file does, so these begin first: those that
# take longest, of CPU seconds.
LONGEST = (
  'tests/sharding/test_equal.py',
  'tests/test_conformance.py',
  'tests/sharding/test_population_mesh.py',
  'tests/training/test_processes.py',
  'tests/scale/test_plan.py',
  'tests/cli/test_report.py',
  'tests/cli/test_plan_verb.py',
  'tests/scripts/test_kill_runs.py',
  'tests/cli/test_follow_ups.py',
  'tests/test_readme.py',
  'tests/training/test_step_of_several.py',
  'tests/cli/test_population.py',
  'tests/cli/test_sweep.py',
  'tests/models/test_cudnn.py',
  'tests/sharding/test_evaluate_mesh.py',
  'tests/scripts/test_bench_gpu.py',
  'tests/training/test_members.py',
  'tests/training/test_prompted_run.py',
  'tests/cli/test_mistakes.py',
  'tests/cli/test_packed_run.py',
)


def pytest_collection_modifyitems(items):
  root = pathlib.Path(__file__).parent.parent
  if gone := [name for name in LONGEST if not (root / name).is_file()]:
    raise pytest.UsageError(f'LONGEST of tests/conftest.py names files that are not there: {gone}')
  rank = {name: place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.location[0], len(rank)))


def pytest_collection_finish():
  """What the imports left is not looked through again and again: it is half a second each time."""
  gc.freeze()


@pytest.fixture(autouse=True)
def compilation_cache():
  """A run that is told to use none does not turn it off for the tests after it."""
  yield
  jax.config.update('jax_enable_compilation_cache', True)
