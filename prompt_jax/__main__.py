"""`python -m prompt_jax` is the same as `prompt-jax`."""

from prompt_jax.cli.main import run

run()
