"""`prompt-jax plan`: its flags as settings of a plan."""

import argparse
import os

from prompt_jax.checkpoints.source import EMBEDDED
from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.scale.plan_run import plan


def run(args: argparse.Namespace) -> None:
  if not args.model:
    raise UserError('Give --model, a file of gin/models such as t5_1_1/xxl, or a model folder.')
  includes = []
  if args.model == EMBEDDED or '://' in args.model or os.path.exists(args.model):
    args.gin.append(('MODEL', repr(args.model)))
  else:
    includes.append(('models', args.model))
  includes += [('prompts', args.prompt)] if args.prompt else []
  config.load(args, plan, includes)()
