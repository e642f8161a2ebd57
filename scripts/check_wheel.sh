#!/usr/bin/env bash
# Builds the wheel, installs it alone in an empty environment, and uses it from another folder: what
# the package needs must be among its requirements and its data. Arguments go to pip.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf build/lib build/wheel build/empty  # what is left in build/lib would go into the wheel
python -m pip wheel -qq --disable-pip-version-check --no-deps -w build/wheel "$@" .
python -m venv build/empty
build/empty/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt "$@" build/wheel/*.whl
bin=$PWD/build/empty/bin
mkdir build/empty/work
cd build/empty/work
"$bin/python" -c 'import prompt_jax; print(prompt_jax.__version__, prompt_jax.__file__)'
"$bin/prompt-jax" --help > help.txt
"$bin/prompt-jax" tasks > tasks.txt
grep -q docstrings_iid tasks.txt
printf 'text\tlabel\n' > reviews.tsv
for i in $(seq 20); do printf 'a warm film %s\tgood\na dull film %s\tbad\n' "$i" "$i" >> reviews.tsv; done
"$bin/prompt-jax" train --data reviews.tsv --output out --steps 1 --length 4 --input_length 16 --batch_size 4
"$bin/prompt-jax" infer --prompt_file out/prompt.safetensors 'a warm film'
