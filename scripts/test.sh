#!/usr/bin/env bash
# The whole test suite in a virtual environment of its own (.venv). Arguments go to pytest:
#   scripts/test.sh tests/data -k batches
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh datasets,seqio,test
# One file stays on one worker, so that what a file compiles is compiled once; the order of files is
# that of tests/conftest.py.
exec python -m pytest -n "${TEST_WORKERS:-auto}" --dist loadfile --no-loadscope-reorder \
  --durations 15 "$@"
