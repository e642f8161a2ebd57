"""Counts FLOPs, memory traffic and collectives of a compiled program, including loop iterations.

Only one program is read, because all devices run the same one.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from prompt_jax.scale.chips import Chip
from prompt_jax.scale.hlo import Computation, Instruction, Program

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Instructions that move nothing themselves.
_FREE = {
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id',
  'replica-id', 'iota', 'while', 'conditional', 'call', 'async-start', 'async-update',
  'optimization-barrier', 'domain',
}  # fmt: skip
# A collective over slices is a "send" to the host, which reduces or spreads what it is given.
_BETWEEN_SLICES = '_xla_megascale_transfer_type'
_ALLOCATION = 'custom_call_target="AllocateBuffer"'
_SLICES = ('dynamic-slice', 'slice', 'gather')


@dataclasses.dataclass(frozen=True)
class Traffic:
  """The collectives of one kind.

  Attributes:
    count: how many run.
    bytes: that one device sends for them, with the ring algorithm.
  """

  count: int
  bytes: float


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of one step on one device.

  Attributes:
    flops: of matrix products, and those that kernels declare.
    hbm_bytes: read from and written to its memory.
    roofline_seconds: sum over instructions of max(FLOPs / peak, bytes / bandwidth): a lower bound.
    cycle_seconds: sum of the compiler's own estimated cycles / clock, where it gives them, of
      `kernel_seconds`, and of the roofline elsewhere; no instruction overlaps another.
    kernel_seconds: of Pallas kernels, for which the program text has no cycles: max(FLOPs /
      `Chip.kernel_flops`, bytes / bandwidth), with the figures that they declare.
    collectives: by kind.
    collective_seconds: bytes sent / bandwidth of one link; no collective overlaps anything.
    unknown_loops: loops whose trip count depends on data, or was not found.
    between_slices: what one device sends over the data-centre network; in no other sum.
  """

  flops: float
  hbm_bytes: float
  roofline_seconds: float
  cycle_seconds: float
  kernel_seconds: float
  collectives: dict[str, Traffic]
  collective_seconds: float
  unknown_loops: int
  between_slices: Traffic = Traffic(0, 0.0)


def cost(text: str, chip: Chip, unknown_trips: int = 1) -> Cost:
  """The cost of a compiled program on a chip.

  Args:
    text: `compiled.as_text()`.
    chip: the device.
    unknown_trips: how often loops run whose end depends on data.
  """
  program = Program(text, unknown_trips)
  counter = _Counter(program)
  flops = hbm = roofline = cycles = kernels = 0.0
  counts: dict[str, int] = collections.Counter()
  sent: dict[str, float] = collections.defaultdict(float)
  channels: set[tuple[str, str | None]] = set()
  handed_over, handed_bytes = 0, 0.0
  for computation, instruction, times in program.visits():
    for kind, amount in _collectives(program, computation, instruction, channels):
      counts[kind] += times
      sent[kind] += times * amount
    if instruction.operation.removesuffix('-start') in COLLECTIVES:
      continue
    if instruction.operation == 'send' and _BETWEEN_SLICES in instruction.attributes:
      handed_over += times
      handed_bytes += times * _bytes_given(program.computations[computation], instruction)
      continue
    work = counter.flops_of(computation, instruction)
    moved = counter.bytes_of(computation, instruction)
    least = max(work / chip.flops, moved / chip.bandwidth)
    flops += times * work
    hbm += times * moved
    roofline += times * least
    if _declared(instruction, 'flops') is None:
      cycles += times * _cycle_seconds(instruction, chip, least)
    else:
      kernels += times * max(work / chip.kernel_flops, moved / chip.bandwidth)
  return Cost(
    flops=flops,
    hbm_bytes=hbm,
    roofline_seconds=roofline,
    cycle_seconds=cycles + kernels,
    kernel_seconds=kernels,
    collectives={kind: Traffic(counts[kind], sent[kind]) for kind in sorted(counts)},
    collective_seconds=sum(sent.values()) / chip.link,
    unknown_loops=program.unknown_loops,
    between_slices=Traffic(handed_over, handed_bytes),
  )


def _cycle_seconds(instruction: Instruction, chip: Chip, otherwise: float) -> float:
  found = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
  # About 2**63 means "not known".
  return int(found[1]) / chip.clock if found and int(found[1]) < 1e13 else otherwise


def _collectives(
  program: Program, computation: str, instruction: Instruction, channels: set
) -> Iterator[tuple[str, float]]:
  """(kind, bytes sent) of a collective, or of those inside of a fusion.

  Fused are a reduce-scatter, as a sum of which one part is kept, and a collective that other work
  runs beside: once where it begins, beside the work, and where it ends, all with one channel.
  """
  kind = instruction.operation.removesuffix('-start')
  if kind in COLLECTIVES:
    yield kind, _sent(program.computations[computation], kind, instruction)
  if instruction.operation != 'fusion':
    return
  for name in instruction.called:
    inside = program.computations.get(name, {})
    for each in inside.values():
      kind = each.operation.removesuffix('-start')
      channel = (computation, each.attribute('channel_id'))
      if kind not in COLLECTIVES or channel in channels:
        continue
      channels.add(channel)
      kept = [i for i in inside.values() if each.name in i.operands]
      if kind == 'all-reduce' and [i.operation for i in kept] == ['dynamic-slice']:
        kind = 'reduce-scatter'
      yield kind, _sent(inside, kind, each)


def _declared(instruction: Instruction, what: str) -> float | None:
  """What a kernel says of itself (`pallas_call(cost_estimate=)`); None of anything else."""
  if instruction.operation != 'custom-call' or 'tpu_custom_call' not in instruction.attributes:
    return None
  found = re.search(rf'"cost_estimate":\{{[^}}]*"{what}":"(\d+)"', instruction.attributes)
  return int(found[1]) if found else None


def _sent(computation: Computation, kind: str, instruction: Instruction) -> float:
  """Bytes that one device of a ring sends."""
  inputs = _bytes_given(computation, instruction)
  if kind == 'collective-permute':
    return inputs
  n = _group(instruction)
  factor = {
    'all-reduce': 2 * (n - 1) / n,
    'all-gather': n - 1,
    'reduce-scatter': (n - 1) / n,
    'all-to-all': (n - 1) / n / 2,
  }
  return inputs * factor[kind]


def _bytes_given(computation: Computation, instruction: Instruction) -> float:
  """Of all operands."""
  given = [computation[name] for name in instruction.operands if name in computation]
  return sum(buffer.bytes for each in given for buffer in each.buffers)


def _group(instruction: Instruction) -> int:
  """Devices that take part: the text has them listed, as a shape, or as axes of a mesh."""
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', instruction.attributes)
  if listed:
    return len(listed[1].split(','))
  shaped = re.search(r'replica_groups=\[(\d+),(\d+)\]', instruction.attributes)
  if shaped:
    return int(shaped[2])
  # Between the two there may be the order of the devices.
  mesh = re.search(r'replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}', instruction.attributes)
  if not mesh:
    raise ValueError(f'No devices are named by {instruction.name}: {instruction.attributes[:200]}')
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
  # An axis may take part as a whole, or a piece of it, as 'axis':(before)size.
  pieces = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
  return math.prod(int(piece) if piece else sizes[name] for name, piece in pieces)


class _Counter:
  """FLOPs and bytes of single instructions of one program; remembers those of fusions."""

  def __init__(self, program: Program):
    self._computations = program.computations
    self._flops_inside = functools.cache(self._flops_inside)  # type: ignore[method-assign]
    self._bytes_read = functools.cache(self._bytes_read)  # type: ignore[method-assign]
    self._bytes_written = functools.cache(self._bytes_written)  # type: ignore[method-assign]

  def flops_of(self, computation: str, instruction: Instruction) -> float:
    if instruction.operation in ('dot', 'convolution'):
      return _product_flops(instruction, self._computations[computation])
    if instruction.operation == 'fusion':
      return sum(self._flops_inside(c) for c in instruction.called if c in self._computations)
    return _declared(instruction, 'flops') or 0

  def _flops_inside(self, computation: str) -> float:
    return sum(self.flops_of(computation, i) for i in self._computations[computation].values())

  def bytes_of(self, computation: str, instruction: Instruction) -> float:
    """Of a whole instruction, operands and results that live in HBM."""
    operation = instruction.operation
    if operation in _FREE or operation.endswith('-done') or _ALLOCATION in instruction.attributes:
      return 0
    declared = _declared(instruction, 'bytes_accessed')
    if declared is not None:
      return declared
    results = [b for b in instruction.buffers if b.in_hbm]
    if operation in ('slice-start', 'dynamic-slice-start'):
      return min((b.bytes for b in results[:2]), default=0)
    if operation == 'copy-start':
      return sum(b.bytes for b in instruction.buffers[:2] if b.in_hbm)
    if operation in _SLICES:
      return 2 * sum(b.bytes for b in results)
    instructions = self._computations[computation]
    if operation == 'dynamic-update-slice':
      return 2 * sum(b.bytes for b in instructions[instruction.operands[1]].buffers if b.in_hbm)
    fused = self._fused(instruction)
    read = 0.0
    for index, name in enumerate(instruction.operands):
      buffers = instructions[name].buffers if name in instructions else []
      if len(buffers) == 1 and buffers[0].in_hbm:
        read += self._bytes_read(fused, index) if fused else buffers[0].bytes
    written = self._bytes_written(fused) if fused else ()
    if len(written) != len(instruction.buffers):
      written = (None,) * len(instruction.buffers)
    pairs = zip(instruction.buffers, written, strict=True)
    return read + sum(b.bytes if w is None else w for b, w in pairs if b.in_hbm)

  def _fused(self, instruction: Instruction) -> str | None:
    if instruction.operation != 'fusion' or not instruction.called:
      return None
    return instruction.called[0] if instruction.called[0] in self._computations else None

  def _bytes_read(self, computation: str, index: int) -> float:
    """Of parameter `index` of a fusion: a slice of stacked weights reads only its slice."""
    for i in self._computations[computation].values():
      if i.operation == 'parameter' and i.arguments.strip() == str(index):
        return self._bytes_used(computation, i)
    return 0

  def _bytes_used(self, computation: str, value: Instruction) -> float:
    whole = sum(b.bytes for b in value.buffers)
    total = 0.0
    for user in self._computations[computation].values():
      if value.name not in user.operands:
        continue
      is_first = user.operands[0] == value.name
      fused = self._fused(user)
      # A fusion that aliases its only operand tiles it anew in place: it moves nothing.
      in_place = len(user.operands) == 1 and 'output_to_operand_aliasing' in user.attributes
      if user.operation in ('bitcast', 'reshape', 'get-tuple-element') or (fused and in_place):
        total += self._bytes_used(computation, user)
      elif user.operation in _SLICES:
        total += sum(b.bytes for b in user.buffers) if is_first else 0
      elif user.operation == 'dynamic-update-slice' and is_first:
        continue
      elif fused:
        uses = [i for i, name in enumerate(user.operands) if name == value.name]
        total += sum(self._bytes_read(fused, i) for i in uses)
      else:
        total += whole
    return min(total, whole)

  def _bytes_written(self, computation: str) -> tuple[float | None, ...]:
    """Of each result of a fusion; None for all of it. An update in place writes only itself."""
    instructions = self._computations[computation]
    root = next(i for i in instructions.values() if i.is_root)
    names = root.operands if root.operation == 'tuple' else [root.name]
    return tuple(self._result_bytes(instructions, instructions[name]) for name in names)

  def _result_bytes(self, instructions: Computation, result: Instruction) -> float | None:
    while result.operation in ('bitcast', 'reshape', 'copy') and result.operands:
      result = instructions[result.operands[0]]
    if result.operation == 'dynamic-update-slice':
      return sum(b.bytes for b in instructions[result.operands[1]].buffers)
    fused = self._fused(result)
    written = self._bytes_written(fused) if fused else ()
    return written[0] if len(written) == 1 else None


def _product_flops(product: Instruction, instructions: Computation) -> float:
  """Two for each multiplication and addition of a dot or a convolution."""
  result = product.buffers[0].dims
  left, right = (instructions[name].buffers[0].dims for name in product.operands[:2])
  if product.operation == 'dot':
    found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', product.attributes)
    contracted = [left[int(d)] for d in found[1].split(',') if d] if found else []
    return 2 * math.prod(result) * math.prod(contracted)
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', product.attributes)
  assert labels, product.attributes
  inputs, kernel, output = labels.groups()
  flops = 2.0 * result[output.index('b')] * result[output.index('f')] * right[kernel.index('i')]
  window = re.search(r'window=\{([^}]*)\}', product.attributes)
  settings = dict(pair.split('=') for pair in window[1].split()) if window else {}
  for i, axis in enumerate(sorted(c for c in output if c.isdigit())):
    get = lambda key, default, i=i: settings[key].split('x')[i] if key in settings else default
    flops *= _window_pairs(
      left[inputs.index(axis)],
      result[output.index(axis)],
      right[kernel.index(axis)],
      int(get('stride', '1')),
      int(get('pad', '0_0').split('_')[0]),
      int(get('lhs_dilate', '1')),
      int(get('rhs_dilate', '1')),
    )
  groups = re.search(r'batch_group_count=(\d+)', product.attributes)
  return flops / (int(groups[1]) if groups else 1)


@functools.cache
def _window_pairs(
  length: int, results: int, size: int, stride: int, pad: int, dilate: int, spread: int
) -> int:
  """(result, element of the window) pairs of one dimension that meet an input, not padding."""
  count = 0
  for i in range(results):
    for j in range(size):
      at = i * stride - pad + j * spread
      count += at % dilate == 0 and 0 <= at // dilate < length
  return count
