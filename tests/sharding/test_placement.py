"""Which parameter lies where, and what is refused before anything is computed."""

import warnings

import jax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.errors import UserError
from prompt_jax.models.attention.attend import constrained
from prompt_jax.models.t5.config import T5Config
from prompt_jax.sharding import layouts, placement
from prompt_jax.sharding.axes import axes_of
from prompt_jax.sharding.layouts import MeshSize
from prompt_jax.testing import tiny
from tests.shared import facts

SMALL = T5Config(
  vocab_size=32128,
  emb_dim=512,
  num_heads=6,
  head_dim=64,
  num_encoder_layers=8,
  num_decoder_layers=8,
  mlp_dim=1024,
)
UMT5 = T5Config(64, 32, 2, 8, 2, 2, 48, relpos_per_layer=True)
T5_1_0 = T5Config(64, 32, 2, 8, 2, 2, 48, mlp_activations=('relu',), tied_logits=True)


def dimensions(cfg: T5Config) -> dict[str, list[int]]:
  shapes = expected_shapes(cfg)
  return layouts.dimensions_of(axes_of(list(shapes)), shapes)


@pytest.mark.parametrize('cfg', [tiny.config(), UMT5, T5_1_0], ids=['1.1', 'umt5', '1.0'])
def test_every_parameter_of_every_architecture_has_axes_as_many_as_dimensions(cfg):
  shapes = expected_shapes(cfg)
  for path, axes in axes_of(list(shapes)).items():
    assert len(axes) == len(shapes[path]), path


def test_unknown_parameters_are_all_listed():
  paths = ['encoder/layers/mlp/wo/kernel', 'encoder/adapter/kernel', 'decoder/bias']
  with pytest.raises(UserError, match=facts('decoder/bias', 'encoder/adapter/kernel')):
    axes_of(paths)


@pytest.mark.parametrize(
  ('layout', 'size', 'axes'),
  [
    ('data', (4, 2), {8: ('data', 'model'), 12: ('data',), 6: ('model',), 3: (), 1: ()}),
    ('data', (2, 4), {4: ('model',), 2: ('data',)}),
    ('data', (3, 2), {6: ('data', 'model'), 9: ('data',), 4: ('model',)}),
    ('tensor', (4, 2), {8: ('data',), 2: ()}),
    ('fully_sharded', (8, 1), {16: ('data',), 4: ()}),
    ('2d', (2, 4), {6: ('data',), 3: ()}),
  ],
)
def test_prompts_are_cut_over_the_most_devices_that_divide_them(layout, size, axes):
  rules = layouts.rules_of(layout)
  found = {count: layouts.prompt_axes(rules, MeshSize(*size), count) for count in axes}
  assert found == axes


def test_rows_and_widths_have_the_axes_that_prompts_leave():
  rules = layouts.rules_of('2d')
  left = {'vocab': ('model',), 'heads': ('model',), 'joined_kv': ('model',), 'mlp': ('model',)}
  assert dict(layouts.without(('data',), rules)) == left
  everywhere = ('data', 'model')
  assert layouts.without(everywhere, layouts.rules_of('fully_sharded')) == ()
  assert dict(layouts.without(('model',), layouts.rules_of('data'))) == {'batch': ('data',)}
  assert dict(layouts.without((), rules))['embed'] == ('data',)


@pytest.mark.parametrize(
  ('layout', 'spec'),
  [
    ('data', P(None, None, None)),
    ('tensor', P(None, None, 'model')),
    ('sequence', P(None, None, 'model')),
    ('fully_sharded', P(None, ('data', 'model'), None)),
    ('2d', P(None, 'data', 'model')),
  ],
)
def test_kernels_are_cut_as_the_layout_says_and_vectors_and_scales_are_not(layout, spec):
  place = placement.make((1, 1), layout, jax.devices())
  assert place.backbone_leaf('encoder/layers/mlp/wi_0/kernel', (2, 32, 48)).spec == spec
  assert place.backbone_leaf('encoder/layers/mlp/wi_0/kernel', (2, 1, 48)).spec[1] is None
  norm = 'encoder/layers/pre_mlp_layer_norm/scale'
  assert place.backbone_leaf(norm, (2, 32)).spec == P()
  tree = {'prompt': {'encoder': {'prompt': jax.numpy.ones((4, 32))}}}
  assert place.shardings(tree)['prompt']['encoder']['prompt'].spec == P()


def test_intermediate_values_are_cut_as_the_layout_says_and_without_a_warning():
  place = placement.make((1, 1), 'tensor', jax.devices())
  width = lambda x: constrained(2 * x, 'batch', 'length', 'mlp')
  x = jax.numpy.ones((4, 6, 8))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    program = jax.make_jaxpr(jax.jit(place.with_mesh(width)))(x)
  found = [e for e in program.eqns[0].params['jaxpr'].eqns if e.primitive.name != 'mul']
  assert [e.params['sharding'].spec for e in found] == [P('data', None, 'model')]
  assert 'sharding' not in str(jax.make_jaxpr(jax.jit(width))(x))


def test_a_sequence_is_cut_between_the_blocks_only():
  spec = lambda layout, *axes: nn.logical_to_mesh_axes(axes, layouts.rules_of(layout))
  between, heads = ('batch', 'length', 'embed'), ('batch', 'length', 'heads', 'kv')
  assert spec('sequence', *between) == P('data', 'model', None)
  assert spec('tensor', *between) == P('data', None, None)
  for axes in (heads, ('batch', 'length', 'mlp'), ('batch', 'length', 'vocab')):
    assert spec('sequence', *axes) == spec('tensor', *axes)


def test_heads_that_do_not_divide_are_refused_with_the_nearest_mesh():
  message = facts("'tensor'", '2x4', '6 attention heads', 'into 4', '4x2')
  with pytest.raises(UserError, match=message):
    layouts.check_divides('tensor', MeshSize(2, 4), 32, dimensions(SMALL))
  layouts.check_divides('tensor', MeshSize(4, 2), 32, dimensions(SMALL))


def test_an_odd_vocabulary_is_refused_where_it_is_cut():
  odd = {**dimensions(SMALL), 'vocab': [32101]}
  with pytest.raises(UserError, match=facts('32101', '2', '2x1')):
    layouts.check_divides('tensor', MeshSize(1, 2), 32, odd)
  layouts.check_divides('data', MeshSize(8, 1), 32, odd)


def test_a_batch_smaller_than_the_mesh_is_refused():
  with pytest.raises(UserError, match=facts('4', '8', '4x1')):
    layouts.check_divides('data', MeshSize(8, 1), 4, dimensions(SMALL))


@pytest.mark.parametrize(
  ('size', 'layout', 'message'),
  [
    ((64, 1), 'data', facts('64x1', '64')),
    ((1, 1), 'tensr', facts("'tensr'", "'tensor'")),
    (None, 'tensor', facts("'tensor'", 'mesh')),
    ((1,), 'data', facts('mesh', '(1,)')),
    ((0, 1), 'data', facts('mesh', '(0, 1)')),
  ],
)
def test_what_is_no_mesh_is_refused(size, layout, message):
  with pytest.raises(UserError, match=message):
    placement.make(size, layout, jax.devices())


def test_no_size_means_one_device():
  assert placement.make(None, 'data', jax.devices()) is None
