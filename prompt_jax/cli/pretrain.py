"""`prompt-jax pretrain`: its flags as settings of a pretraining run."""

import argparse

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.pretraining.pretrain import pretrain
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  processes.refuse_multiple('pretrain')
  found = config.load('pretrain', pretrain, request_of(args))
  pretrain(**found.arguments, record=found.record)
