#!/usr/bin/env bash
# Runs every notebook of examples/ from top to bottom, in a copy; a cell that fails ends it.
#   scripts/notebooks.sh          leaves the results in build/examples
#   scripts/notebooks.sh --save   and keeps the outputs in examples/
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf build/examples
mkdir -p build
cp -r examples build/examples
for notebook in build/examples/*.ipynb; do
  jupyter execute --inplace --timeout=1200 --NotebookClient.iopub_timeout=60 "$notebook"
done
[ "${1:-}" != --save ] || cp build/examples/*.ipynb examples/
