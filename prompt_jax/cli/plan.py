"""`prompt-jax plan`: its flags as settings of a plan."""

import argparse
import dataclasses
import os

from prompt_jax.checkpoints.backbone import EMBEDDED
from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.scale.plan_run import plan


def run(args: argparse.Namespace) -> None:
  if not args.model:
    raise UserError('Give --model, a file of gin/models such as t5_1_1/xxl, or a model folder.')
  request = request_of(args)
  if args.model == EMBEDDED or '://' in args.model or os.path.exists(args.model):
    request = dataclasses.replace(request, settings={**request.settings, 'MODEL': args.model})
  else:
    request = dataclasses.replace(request, includes=[('models', args.model)])
  found = config.load('plan', plan, request)
  for note in found.record.notes:
    print(note)
  plan(**found.arguments)
