# Makes .venv and installs the package there, at the tested versions. Sourced by the other scripts:
#   . scripts/install.sh [EXTRA,EXTRA]
# PYTHON names another interpreter (3.11 or later). What pip is configured to use is respected: where
# it finds a CPU build of torch 2.13.0, that is taken; elsewhere the test extra brings the CUDA build.
# shellcheck shell=bash
extras=${1:+[$1]}
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or later is needed; $python is $("$python" -V). Set PYTHON to another one." >&2
  exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".$extras"
export PATH="$PWD/.venv/bin:$PATH"
python -c "
import importlib.metadata as m, platform
names = ('prompt_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
print('Python', platform.python_version(), *(f'{n} {m.version(n)}' for n in names), sep=' · ')"
