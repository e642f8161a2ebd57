"""Orbax's older form with a msgpack file, which Orbax itself no longer writes but still reads."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization, traverse_util

from prompt_jax.checkpoints.formats.t5x import from_t5x
from prompt_jax.checkpoints.formats.t5x_checkpoint import is_checkpoint, open_checkpoint
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.t5x_forms import STEP, orbax_msgpack
from tests.checkpoints.test_huggingface import CONFIGS
from tests.shared import facts

PARAMS = random_params(CONFIGS['t5_1_1'])
WO = 'target.encoder.layers_1.mlp.wo.kernel'


def load(place):
  checkpoint = open_checkpoint(str(place))
  leaves = from_t5x(checkpoint.target, checkpoint.where)[1]
  return traverse_util.unflatten_dict({p: x.read() for p, x in leaves.items()}, sep='/')


@pytest.fixture(params=[False, True], ids=['2023', '2024'])
def folder(request, tmp_path):
  """With its description of 2024 and without one."""
  folder = tmp_path / f'checkpoint_{STEP}'
  orbax_msgpack(folder, unstack_layers(PARAMS), metadata=request.param)
  return folder


def test_orbax_reads_its_older_form(folder):
  like = {'target': unstack_layers(PARAMS), 'state': {'step': np.int32(0), 'none': None}}
  args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
  with ocp.PyTreeCheckpointer() as checkpointer:
    got = checkpointer.restore(folder / 'state', item=like, restore_args=args)
  assert got['state']['step'] == STEP
  jax.tree.map(np.testing.assert_array_equal, got['target'], unstack_layers(PARAMS))


def test_it_is_read_from_every_place_one_may_give(folder):
  assert is_checkpoint(folder)
  assert open_checkpoint(str(folder), prefix='').form == 'Orbax with a msgpack file'
  for place in (folder, folder.parent, folder / 'state', folder / 'state/checkpoint'):
    jax.tree.map(np.testing.assert_array_equal, load(place), PARAMS)


def test_what_lies_outside_the_file_is_not_read_before_it_is_needed(folder):
  (folder / f'state/{WO}/0.0').unlink()
  checkpoint = open_checkpoint(str(folder), prefix='')
  step = np.empty((), np.int32)
  checkpoint.leaves['state/step'].fill(step)
  assert step == STEP
  assert 'state/none' not in checkpoint.leaves
  with pytest.raises(UserError, match=facts('encoder/layers_1/mlp/wo/kernel', '1 of 1', 'chunks')):
    load(folder)


def test_a_folder_outside_the_checkpoint_is_not_read(folder):
  tree = serialization.msgpack_restore((folder / 'state/checkpoint').read_bytes())
  tree['target']['token_embedder']['embedding'] = 'PLACEHOLDER://../elsewhere'
  (folder / 'state/checkpoint').write_bytes(serialization.msgpack_serialize(tree))
  with pytest.raises(UserError, match='PLACEHOLDER'):
    load(folder)
