"""Reads the text of a compiled program (HLO): instructions, shapes, and how often loops run.

`compiled.cost_analysis()` counts the body of a loop once, whatever its trip count, and a model
with scanned layers is almost entirely a loop. So the text is parsed and summed here.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {
  'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 'f8e4m3fn': 8, 'f8e5m2': 8, 's16': 16, 'u16': 16,
  'bf16': 16, 'f16': 16, 's32': 32, 'u32': 32, 'f32': 32, 's64': 64, 'u64': 64, 'f64': 64,
  'c64': 64, 'token': 0, 'opaque': 0,
}  # fmt: skip
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = ')
_SHAPE = re.compile(r'([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?')
_CALLED = re.compile(r'(?:calls|to_apply|body|condition)=%?([\w.\-]+)')
_MOVES = ('copy', 'bitcast', 'convert')


class Buffer(NamedTuple):
  """One array of an instruction's result."""

  dtype: str
  dims: tuple[int, ...]
  in_hbm: bool  # or in the chip's own vector memory

  @property
  def bytes(self) -> float:
    return math.prod(self.dims) * BITS[self.dtype] / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """`name = shape operation(arguments), attributes`."""

  name: str
  operation: str
  shape: str
  arguments: str
  attributes: str
  is_root: bool

  @functools.cached_property
  def buffers(self) -> list[Buffer]:
    found = []
    for dtype, dims, layout in _SHAPE.findall(self.shape):
      if dtype in BITS:
        sizes = tuple(int(n) for n in dims.split(',') if n)
        found.append(Buffer(dtype, sizes, not re.search(r'S\([1-9]\d*\)', layout)))
    return found

  @functools.cached_property
  def operands(self) -> list[str]:
    return re.findall(r'%([\w.\-]+)', self.arguments)

  @functools.cached_property
  def called(self) -> list[str]:
    return _CALLED.findall(self.attributes)

  def attribute(self, name: str) -> str | None:
    found = re.search(name + r'=%?([\w.\-]+)', self.attributes)
    return found[1] if found else None


Computation = dict[str, Instruction]


class Visit(NamedTuple):
  """An instruction of the program itself (not inside a fusion), and how often it runs."""

  computation: str
  instruction: Instruction
  times: int


class Program:
  """The computations of one device's program."""

  def __init__(self, text: str, unknown_trips: int = 1):
    """Reads `compiled.as_text()`; loops whose end depends on data run `unknown_trips` times."""
    self.computations, self.entry = _parse(text)
    self.unknown_loops = 0  # loops whose trip count is not in the text
    self._unknown_trips = unknown_trips

  def visits(self) -> Iterator[Visit]:
    """Every instruction that runs, bodies of loops and called computations included."""
    stack = [(self.entry, 1)]
    while stack:
      name, times = stack.pop()
      for instruction in self.computations[name].values():
        yield Visit(name, instruction, times)
        if instruction.operation == 'while':
          body = instruction.attribute('body')
          assert body is not None
          stack.append((body, times * self._trips(name, instruction)))
        elif instruction.operation in ('call', 'conditional') or (
          instruction.operation.endswith('-start')
        ):
          stack += [(c, times) for c in instruction.called if c in self.computations]

  def _trips(self, computation: str, loop: Instruction) -> int:
    """How often a counted loop runs: ceil((bound - first) / step)."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
      return int(known[1])
    count = self._counted(computation, loop)
    if count is None:
      self.unknown_loops += 1
      return self._unknown_trips
    return max(1, count)

  def _counted(self, computation: str, loop: Instruction) -> int | None:
    """The trip count from condition, body and initial tuple; None if it is not constant."""
    condition_name, body_name = loop.attribute('condition'), loop.attribute('body')
    assert condition_name is not None
    assert body_name is not None
    condition, body = self.computations[condition_name], self.computations[body_name]
    initial = self.computations[computation].get(loop.operands[0])
    first: dict[int, int | None] = {}
    if initial is not None and initial.operation == 'tuple':
      first = {i: self._constant(computation, name, {}) for i, name in enumerate(initial.operands)}
    compare = next((i for i in condition.values() if i.operation == 'compare'), None)
    if compare is None:
      return None
    counter = _through_moves(condition, compare.operands[0])
    bound = self._constant(condition_name, compare.operands[1], first)
    if counter is None or counter.operation != 'get-tuple-element' or bound is None:
      return None
    index = _element(counter)
    step = self._step(body_name, body, index, first)
    begin = first.get(index)
    return None if not step or begin is None else -(-(bound - begin) // step)

  def _step(
    self, name: str, body: Computation, index: int, first: dict[int, int | None]
  ) -> int | None:
    """What a loop's body adds to its counter."""
    root = next(i for i in body.values() if i.is_root)
    if root.operation != 'tuple':
      return None
    total, at = 0, _through_moves(body, root.operands[index])
    while at is not None and at.operation == 'add':
      constants = [self._constant(name, operand, first) for operand in at.operands]
      which = 1 if constants[1] is not None else 0
      added = constants[which]
      if added is None:
        return None
      total += added
      at = _through_moves(body, at.operands[1 - which])
    return total if at is not None and at.operation == 'get-tuple-element' else None

  def _constant(self, computation: str, name: str, first: dict[int, int | None]) -> int | None:
    """The integer value of an instruction, followed through copies and tuple elements."""
    instructions = self.computations[computation]
    found = _through_moves(instructions, name)
    if found is None:
      return None
    if found.operation == 'constant':
      value = found.arguments.strip()
      return int(value) if re.fullmatch(r'-?\d+', value) else None
    if found.operation == 'get-tuple-element':
      source = instructions.get(found.operands[0])
      if source is not None and source.operation == 'parameter':
        return first.get(_element(found))
    return None


def _element(instruction: Instruction) -> int:
  index = instruction.attribute('index')
  assert index is not None
  return int(index)


def _through_moves(computation: Computation, name: str) -> Instruction | None:
  """The instruction whose value `name` only moves."""
  found = computation.get(name)
  while found is not None and found.operation in _MOVES and found.operands:
    found = computation.get(found.operands[0])
  return found


def _parse(text: str) -> tuple[dict[str, Computation], str]:
  computations: dict[str, Computation] = {}
  current: Computation | None = None
  entry = ''
  for line in text.splitlines():
    if current is None or not line.startswith(' '):
      header = _COMPUTATION.match(line)
      if header:
        current = computations[header[2]] = {}
        entry = header[2] if header[1] else entry
      elif line.startswith('}'):
        current = None
      continue
    matched = _INSTRUCTION.match(line)
    if matched:
      instruction = _instruction(line, matched)
      current[instruction.name] = instruction
  return computations, entry


def _instruction(line: str, matched: re.Match[str]) -> Instruction:
  start = matched.end()
  # A tuple's shape holds spaces; an array's does not.
  end = _closing(line, start) if line[start] == '(' else line.index(' ', start)
  opened = line.index('(', end)
  closed = _closing(line, opened)
  return Instruction(
    name=matched[2],
    operation=line[end:opened].strip(),
    shape=line[start:end],
    arguments=line[opened + 1 : closed - 1],
    attributes=line[closed:],
    is_root=bool(matched[1]),
  )


def _closing(line: str, start: int) -> int:
  """Just past the bracket that closes line[start]."""
  depth = 0
  for i in range(start, len(line)):
    depth += (line[i] in '([{') - (line[i] in ')]}')
    if depth == 0:
      return i + 1
  return len(line)
