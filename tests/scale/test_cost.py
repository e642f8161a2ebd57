"""Sums over the text of a compiled program, by hand."""

import pytest

from prompt_jax.scale.chips import Chip
from prompt_jax.scale.cost import Traffic, cost
from prompt_jax.scale.hlo import Program

CHIP = Chip(flops=1e6, kernel_flops=2.5e5, memory=1 << 30, bandwidth=1e6, link=1e3, clock=1e3)
PRODUCT = 2 * 8 * 16 * 32 / CHIP.flops  # seconds of LOOP's, once
# A loop that runs 5 times (from 2 to 12 in steps of 2) around a product with one of the stacked
# weights, then a sum over 4 devices.
LOOP = """\
HloModule jit_f, is_scheduled=true

%tiled (q0: f32[7,16,32]) -> f32[7,16,32] {
  %q0 = f32[7,16,32]{2,1,0} parameter(0)
  ROOT %q = f32[7,16,32]{2,1,0} copy(%q0)
}

%sliced (p0: f32[7,16,32], p1: s32[]) -> f32[1,16,32] {
  %raw = f32[7,16,32]{2,1,0} parameter(0)
  %p0 = f32[7,16,32]{2,1,0} fusion(%raw), calls=%tiled, output_to_operand_aliasing={{}: (0, {})}
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %ds = f32[1,16,32]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero)
}

%product (a: f32[8,16], b: f32[1,16,32]) -> f32[8,32] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[1,16,32]{2,1,0} parameter(1)
  %flat = f32[16,32]{1,0} bitcast(%b)
  ROOT %dot = f32[8,32]{1,0} dot(%a, %flat), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (t: (s32[], f32[8,16], f32[7,16,32])) -> (s32[], f32[8,16], f32[7,16,32]) {
  %t = (s32[], f32[8,16]{1,0}, f32[7,16,32]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[8,16]{1,0} get-tuple-element(%t), index=1
  %w = f32[7,16,32]{2,1,0} get-tuple-element(%t), index=2
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %one_w = f32[1,16,32]{2,1,0:S(1)} fusion(%w, %i), kind=kLoop, calls=%sliced
  %y = f32[8,32]{1,0:S(1)} fusion(%x, %one_w), calls=%product, config={"estimated_cycles":"40"}
  ROOT %out = (s32[], f32[8,16]{1,0}, f32[7,16,32]{2,1,0}) tuple(%next, %x, %w)
}

%condition (t: (s32[], f32[8,16], f32[7,16,32])) -> pred[] {
  %t = (s32[], f32[8,16]{1,0}, f32[7,16,32]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %bound = s32[] constant(12)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8,16], w: f32[7,16,32]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %w = f32[7,16,32]{2,1,0} parameter(1)
  %first = s32[] constant(2)
  %start = (s32[], f32[8,16]{1,0}, f32[7,16,32]{2,1,0}) tuple(%first, %x, %w)
  %loop = (s32[], f32[8,16], f32[7,16,32]) while(%start), condition=%condition, body=%body
  %y = f32[8,16]{1,0} get-tuple-element(%loop), index=1
  ROOT %all = f32[8,16]{1,0} all-reduce(%y), replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def test_a_loop_is_multiplied_out():
  found = cost(LOOP, CHIP)
  assert found.unknown_loops == 0
  assert found.flops == 5 * 2 * 8 * 16 * 32


def test_a_fused_slice_of_stacked_weights_reads_only_its_slice():
  # Results in the vector memory S(1) cost nothing; %x is read anew by each product.
  piece, x = 16 * 32 * 4, 8 * 16 * 4
  small = 5 * (2 * 4 + 4)  # the counter's addition
  assert cost(LOOP, CHIP).hbm_bytes == pytest.approx(5 * (piece + x) + small)


def test_time_is_of_cycles_where_the_compiler_gives_them_and_the_roofline_elsewhere():
  found = cost(LOOP, CHIP)
  assert found.cycle_seconds - found.roofline_seconds == pytest.approx(5 * (0.040 - PRODUCT))


def test_a_kernel_counts_by_what_it_declares():
  body = '"cost_estimate":{"flops":"8000000","transcendentals":"7","bytes_accessed":"300000"}'
  call = 'f32[8,32]{1,0:S(1)} custom-call(%x, %one_w), custom_call_target="tpu_custom_call", '
  lines = LOOP.splitlines()
  at = next(i for i, line in enumerate(lines) if 'calls=%product' in line)
  lines[at] = f'  %y = {call}backend_config={{"custom_call_config":{{{body}}}}}'
  found, without = cost('\n'.join(lines), CHIP), cost(LOOP, CHIP)
  assert found.flops == 5 * 8e6
  assert found.roofline_seconds == pytest.approx(without.roofline_seconds - 5 * PRODUCT + 5 * 8)
  # The rate of kernels is a quarter of the peak; the bytes take less time.
  assert (without.kernel_seconds, found.kernel_seconds) == (0, pytest.approx(5 * 8 * 4))
  assert found.cycle_seconds == pytest.approx(without.cycle_seconds - 5 * 0.040 + 5 * 8 * 4)


def test_a_ring_sends_twice_three_quarters_for_a_sum_over_four():
  found = cost(LOOP, CHIP)
  assert found.collectives['all-reduce'].count == 1
  assert found.collectives['all-reduce'].bytes == 8 * 16 * 4 * 2 * 3 / 4
  assert found.collective_seconds == 8 * 16 * 4 * 2 * 3 / 4 / CHIP.link


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter():
  fused = """\
%part (a: f32[8,16]) -> f32[2,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %sum = f32[8,16]{1,0} all-reduce(%a), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %own = f32[2,16]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={2,16}
}

ENTRY %main"""
  call = 'ROOT %all = f32[2,16]{1,0} fusion(%y), kind=kCustom, calls=%part'
  text, _ = LOOP.split('  ROOT %all')
  found = cost(text.replace('ENTRY %main', fused) + f'  {call}\n}}\n', CHIP)
  assert found.collectives == {'reduce-scatter': Traffic(1, 8 * 16 * 4 * 3 / 4)}


def test_a_collective_beside_other_work_counts_once():
  part = """\
%{name} (a: f32[8,16]) -> f32[32,16] {{
  %a = f32[8,16]{{1,0}} parameter(0)
  ROOT %g = f32[32,16]{{1,0}} all-gather(%a), channel_id={n}, replica_groups={{{{0,1,2,3}}}}
}}

"""
  names = {'begin': 7, 'beside': 7, 'end': 7, 'another': 8}
  text, _ = LOOP.split('ENTRY %main')
  text += ''.join(part.format(name=name, n=n) for name, n in names.items())
  text += 'ENTRY %main (x: f32[8,16]) -> f32[32,16] {\n  %x = f32[8,16]{1,0} parameter(0)\n'
  for i, name in enumerate(names):
    text += f'  %f.{i} = f32[32,16]{{1,0}} fusion(%x), kind=kOutput, calls=%{name}\n'
  found = cost(text + '}\n', CHIP)
  assert found.collectives == {'all-gather': Traffic(2, 2 * 3 * 8 * 16 * 4)}


def test_memory_that_is_only_set_aside_is_not_moved():
  aside = '  %c = f32[99,99]{1,0} custom-call(), custom_call_target="AllocateBuffer"\n  ROOT %all'
  assert cost(LOOP.replace('  ROOT %all', aside), CHIP) == cost(LOOP, CHIP)


def test_what_goes_between_slices_is_counted_apart():
  over = """\
  %begin = token[] after-all()
  %s = (f32[8,16]{1,0}, u32[], token[]) send(%y, %begin), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %all"""
  within, found = cost(LOOP, CHIP), cost(LOOP.replace('  ROOT %all', over), CHIP)
  assert within.between_slices == Traffic(0, 0)
  assert found.between_slices == Traffic(1, 8 * 16 * 4)
  assert (found.collectives, found.hbm_bytes) == (within.collectives, within.hbm_bytes)


@pytest.mark.parametrize(
  ('groups', 'devices'),
  [
    ('{{0,1,2,3}}', 4),
    ('[2,4]<=[8]', 4),
    ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
    ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
    ("mesh['axis_0'=16] {'axis_0':(1)4}", 4),
    ("mesh['a'=4,'b'=1,'c'=2], device_ids=([4,2]T(1,0)) {'c'}", 2),
  ],
)
def test_devices_of_a_sum_are_read_in_every_form(groups, devices):
  found = cost(LOOP.replace('{{0,1,2,3}}', groups), CHIP)
  assert found.collectives['all-reduce'].bytes == 8 * 16 * 4 * 2 * (devices - 1) / devices


def test_a_loop_whose_end_depends_on_data_runs_as_often_as_said():
  text = LOOP.replace('%bound = s32[] constant(12)', '%bound = s32[] negate(%i)')
  program = Program(text, unknown_trips=3)
  assert {v.times for v in program.visits()} == {1, 3}
  assert program.unknown_loops == 1


def test_a_trip_count_that_the_compiler_notes_is_taken():
  noted = LOOP.replace('body=%body', 'body=%body, backend_config={"known_trip_count":{"n":"9"}}')
  assert {v.times for v in Program(noted).visits()} == {1, 9}


def test_a_convolution_counts_only_window_elements_that_meet_an_input():
  text = """\
ENTRY %main (x: f32[1,4,3], w: f32[3,3,5]) -> f32[1,4,5] {
  %x = f32[1,4,3]{2,1,0} parameter(0)
  %w = f32[3,3,5]{2,1,0} parameter(1)
  ROOT %c = f32[1,4,5]{2,1,0} convolution(%x, %w), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f
}
"""
  assert cost(text, CHIP).flops == 2 * 5 * 3 * (4 * 3 - 2)
