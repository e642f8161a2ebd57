#!/usr/bin/env bash
# From a fresh checkout to a tuned prompt: installs into .venv, then tunes a prompt on the embedded
# model and a task made of Python's own docstrings. A few minutes on 2 CPU cores. Prints a table, the
# prompt file, and how to use it. Arguments are passed on: scripts/quickstart.sh --steps 100
set -euo pipefail
cd "$(dirname "$0")/.."
echo 'Installing into .venv (a minute or two the first time) ...'
. scripts/install.sh ''  # no extras; without an argument it would see those of this script
# Prefix tuning, because the model is small (docs/results.md); short inputs, to end in minutes on 2 cores.
prompt-jax train --task docstrings_iid --model embedded --output runs/quickstart --prompt prefix \
  --length 20 --input_length 48 --batch_size 16 --steps 300 "$@"
echo 'In a new shell, before any of these commands: . .venv/bin/activate'
