"""Cost analysis of a compiled program on one device: FLOPs, memory traffic and collectives.

XLA's own cost analysis counts the body of a loop only once. This one parses the text of the
compiled HLO and multiplies a loop's body by its trip count, if the loop's condition compares a
counter with a constant. For loops that the data ends, such as decoding, the caller gives it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Operations without memory traffic of their own: they move nothing, or their parts are counted.
_FREE = {
  "after-all",
  "bitcast",
  "call",
  "conditional",
  "constant",
  "get-tuple-element",
  "iota",
  "optimization-barrier",
  "parameter",
  "partition-id",
  "tuple",
  "while",
}
_SLICES = ("dynamic-slice", "slice")
_BITS = {"pred": 8, "c64": 64, "c128": 128}  # of types whose name does not give their bits

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|true_computation|false_computation)=%?([\w.\-]+)")
_CALLED_LISTS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_NAME = re.compile(r"%([\w.\-]+)")


class Cost(NamedTuple):
  """Cost of one execution on one device.

  Attributes:
    flops: FLOPs of matrix products.
    bytes: bytes read from and written to the device's main memory.
    collectives: number of collectives executed, by kind.
    collective_bytes: bytes received through collectives, by kind.
    largest: bytes of the largest array that a collective produces.
  """

  flops: float
  bytes: float
  collectives: dict[str, int]
  collective_bytes: dict[str, float]
  largest: int


class _Instruction(NamedTuple):
  """A parsed HLO instruction, `name = shape kind(operands)rest`.

  Attributes:
    root: whether it is the result of its computation.
    shape: text of the result's type, such as `f32[8,16]{1,0}` or a tuple of these.
    rest: attributes that follow the operands.
  """

  name: str
  root: bool
  shape: str
  kind: str
  operands: tuple[str, ...]
  rest: str


class _Collective(NamedTuple):
  """A collective operation.

  Attributes:
    size: bytes of all arrays received in one execution.
    largest: bytes of the largest of these arrays.
    times: number of executions.
  """

  kind: str
  size: int
  largest: int
  times: int


def cost(text: str, open_trips: int = 1) -> Cost:
  """Returns the cost of a program.

  Args:
    text: HLO text of the compiled and partitioned program, from `compiled.as_text()`.
    open_trips: trips of the outermost loops whose end depends on data; loops like that inside of
      them count once per trip.
  """
  return _Program(text).cost(open_trips)


class _Program:
  """A parsed HLO program."""

  def __init__(self, text: str):
    """Parses the computations of a program; each has a header line and one line per instruction."""
    self._computations: dict[str, list[_Instruction]] = {}
    self._entry, current = "", []
    for line in text.splitlines():
      if header := _COMPUTATION.match(line):
        current = self._computations[header[2]] = []
        self._entry = header[2] if header[1] else self._entry
      elif found := _INSTRUCTION.match(line):
        current.append(_parse(*found.groups()))
    self._named = {i.name: i for body in self._computations.values() for i in body}
    self._shapes = {name: instruction.shape for name, instruction in self._named.items()}

  def cost(self, open_trips: int) -> Cost:
    """Adds up the costs of all executed instructions."""
    flops, traffic = 0.0, 0.0
    collectives: dict[str, _Collective] = {}
    executed = self._walk(self._entry, 1, fused=False, open_trips=open_trips)
    for instruction, times, fused in executed:
      flops += times * self._flops(instruction)
      if not fused:
        traffic += times * self._traffic(instruction)
      if instruction.kind.removesuffix("-start") in _COLLECTIVES:
        found = self._collective(instruction, times)
        # XLA may split an asynchronous collective into several fusions that overlap with other
        # operations; all of them name it, with the same channel.
        channel = re.search(r"channel_id=(\d+)", instruction.rest)
        key = channel[1] if channel else instruction.name
        collectives[key] = min(collectives.get(key, found), found, key=lambda c: c.times)
    count, received = Counter(), Counter()
    for kind, size, _, times in collectives.values():
      count[kind] += times
      received[kind] += times * size
    largest = max((collective.largest for collective in collectives.values()), default=0)
    return Cost(
      flops=flops,
      bytes=traffic,
      collectives=dict(count),
      collective_bytes=dict(received),
      largest=largest,
    )

  def _collective(self, instruction: _Instruction, times: int) -> _Collective:
    """Returns a collective with the bytes that it receives."""
    kind = instruction.kind.removesuffix("-start")
    size, largest = _size(instruction.shape, whole=True), _largest(instruction.shape)
    sent = sum(_size(self._shapes[name], whole=True) for name in instruction.operands)
    if instruction.kind in ("all-gather-start", "collective-permute-start"):
      size -= sent  # The result's tuple contains the operands too.
    elif kind == "reduce-scatter":
      size = largest = sent
    return _Collective(kind, size, largest, times)

  def _walk(
    self, name: str, times: int, *, fused: bool, open_trips: int
  ) -> Iterator[tuple[_Instruction, int, bool]]:
    """Yields the executed instructions of a computation, recursively.

    Args:
      open_trips: trips of a loop whose end depends on data.

    Yields:
      The instruction, how often it is executed, and whether it is part of a fusion.
    """
    for instruction in self._computations[name]:
      yield instruction, times, fused
      if instruction.kind == "while":
        called = dict(re.findall(r"(condition|body)=%?([\w.\-]+)", instruction.rest))
        trips = self._trip_count(instruction, called["condition"], called["body"])
        inner = open_trips
        if trips is None:
          trips, inner = open_trips, 1
        yield from self._walk(called["body"], times * trips, fused=fused, open_trips=inner)
      else:
        inner = fused or instruction.kind not in ("call", "conditional")
        for called in self._called(instruction):
          yield from self._walk(called, times, fused=inner, open_trips=open_trips)

  def _called(self, instruction: _Instruction) -> list[str]:
    """Returns the computations that an instruction calls, except the scalar ones of reductions."""
    names = _CALLED.findall(instruction.rest)
    for listed in _CALLED_LISTS.findall(instruction.rest):
      names += _NAME.findall(listed)
    if instruction.kind == "call":
      names += re.findall(r"to_apply=%?([\w.\-]+)", instruction.rest)
    return [name for name in names if name in self._computations]

  def _trip_count(self, loop: _Instruction, condition: str, body: str) -> int | None:
    """Returns how often a loop's body is executed; None if it depends on data."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
      return int(known[1])
    test = next(i for i in self._computations[condition] if i.root)
    if test.kind != "compare" or "direction=LT" not in test.rest:
      return None
    counter, limit = (self._named[name] for name in test.operands)
    if counter.kind != "get-tuple-element":
      return None
    index = int(re.search(r"index=(\d+)", counter.rest)[1])  # of the counter in the loop's state
    step = self._named[next(i for i in self._computations[body] if i.root).operands[index]]
    start = self._named[self._named[loop.operands[0]].operands[index]]
    while start.kind in ("copy", "bitcast"):
      start = self._named[start.operands[0]]
    added = [self._constant(name) for name in step.operands] if step.kind == "add" else []
    last, first = self._constant(limit.name), self._constant(start.name)
    increment = max(added, default=0)
    return -(-(last - first) // increment) if increment > 0 and last > 0 else None

  def _constant(self, name: str) -> int:
    """Returns the value of a whole-number constant; 0 for any other instruction."""
    found = self._named[name]
    number = found.operands[0] if found.kind == "constant" else ""
    return int(number) if number.isdigit() else 0

  def _flops(self, instruction: _Instruction) -> float:
    """Returns the FLOPs of a matrix product, 2 per multiply-add; 0 for any other instruction."""
    if instruction.kind == "dot":
      lhs = _dimensions(self._shapes[instruction.operands[0]])
      axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)[1]
      summed = math.prod(lhs[int(axis)] for axis in axes.split(",") if axis)
    elif instruction.kind == "convolution":
      summed = self._convolution_products(instruction)
    elif instruction.kind == "custom-call" and "__cudnn$fmha" in instruction.rest:
      return self._attention_flops(instruction)
    else:
      return 0.0
    return 2.0 * math.prod(_dimensions(instruction.shape)) * summed

  def _attention_flops(self, instruction: _Instruction) -> float:
    """Returns the FLOPs of cuDNN's fused attention.

    It has two matrix products forward and five backward; causal masking halves them. Where the
    lengths of sequences are data, they may be short: none are counted then.
    """
    if "PADDING" in instruction.rest:
      return 0.0
    queries, keys = (_dimensions(self._shapes[name]) for name in instruction.operands[:2])
    products = 5 if "Backward" in instruction.rest else 2
    share = 0.5 if "CAUSAL" in instruction.rest else 1.0
    return share * products * 2.0 * math.prod(queries) * keys[1]

  def _convolution_products(self, instruction: _Instruction) -> float:
    """Returns the multiply-adds per output element of a convolution, excluding padding.

    XLA writes matrix products as convolutions on TPUs. Their batch axes become window axes on which
    each output element has one product that is not padding.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest).groups()
    shapes = (*(self._shapes[name] for name in instruction.operands[:2]), instruction.shape)
    lhs, kernel, out = (
      dict(zip(label, _dimensions(shape), strict=True))
      for label, shape in zip(labels, shapes, strict=True)
    )
    summed = float(kernel["i"])
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    axes = sorted(label for label in kernel if label.isdigit())
    dilation = fields["lhs_dilate"].split("x") if "lhs_dilate" in fields else ["1"] * len(axes)
    for axis, dilated in zip(axes, dilation, strict=True):
      if dilated == "1":
        summed *= kernel[axis] * min(1.0, lhs[axis] / out[axis])
    return summed

  def _traffic(self, instruction: _Instruction) -> float:
    """Returns the bytes that an instruction moves from and to the device's main memory."""
    kind, operands = instruction.kind, instruction.operands
    if kind in _FREE or kind.endswith("-done"):
      return 0
    if kind.endswith("-start"):
      first = _ARRAY.search(instruction.shape)
      read = sum(_size(self._shapes.get(name, "")) for name in operands)
      return read + (_size(first[0]) if first else 0)
    if kind in _SLICES:
      return 2 * _size(instruction.shape)
    if kind == "dynamic-update-slice":
      return 2 * _size(self._shapes[operands[1]])
    if kind == "gather":
      return 2 * _size(instruction.shape) + _size(self._shapes[operands[1]])
    if kind == "scatter" and len(operands) == 3:
      return 2 * _size(self._shapes[operands[2]]) + _size(self._shapes[operands[1]])
    if kind == "fusion":
      return self._fusion_traffic(instruction)
    return _size(instruction.shape) + sum(_size(self._shapes.get(name, "")) for name in operands)

  def _fusion_traffic(self, instruction: _Instruction) -> float:
    """Returns the bytes that a fusion moves.

    Of operands that the fusion only slices or gathers from, the result is read. Of operands that it
    updates in place, the update is read and written.
    """
    (called,) = self._called(instruction)[:1] or [""]
    written = _size(instruction.shape)
    total = 0.0
    for number, operand in enumerate(instruction.operands):
      size = _size(self._shapes.get(operand, ""))
      read, updated = self._use(called, number, size) if size else (0, None)
      if updated is not None:
        written += updated - size
      total += min(read, size)
    return total + max(written, 0)

  def _use(self, name: str, number: int, size: int) -> tuple[int, int | None]:
    """Returns the bytes that a computation reads of a parameter, and those it updates in place.

    Args:
      name: name of the computation.
      number: number of the parameter.
      size: bytes of the whole parameter.

    Returns:
      Bytes read, and bytes updated in place; None if the parameter is not updated.
    """
    body = self._computations.get(name, [])
    names = {i.name for i in body if i.kind == "parameter" and i.operands[0] == str(number)}
    read, updated = 0, None
    for instruction in body:  # Operands come before their users.
      places = [n for n, operand in enumerate(instruction.operands) if operand in names]
      if not places:
        continue
      if instruction.kind == "bitcast":
        names.add(instruction.name)
      elif instruction.kind in (*_SLICES, "gather") and places == [0]:
        read += _size(instruction.shape, whole=True)
      elif instruction.kind == "dynamic-update-slice" and places == [0]:
        update = _size(self._shapes[instruction.operands[1]], whole=True)
        read, updated = read + update, update
      elif instruction.kind == "scatter" and places == [0] and len(instruction.operands) == 3:
        update = _size(self._shapes[instruction.operands[2]], whole=True)
        read, updated = read + update, update
      elif instruction.kind == "fusion":
        for place in places:
          inner, changed = self._use(self._called(instruction)[0], place, size)
          read += inner
          updated = changed if updated is None else updated
      else:
        read += size
    return read, updated


def _parse(root: str | None, name: str, rest: str) -> _Instruction:
  """Parses an instruction from the groups of `_INSTRUCTION`."""
  end = _balanced(rest) if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  kind, _, rest = rest.partition("(")
  end = _balanced(f"({rest}")
  inside, rest = rest[: end - 1], rest[end - 1 :]
  operands = tuple(_NAME.findall(inside)) or (inside.rstrip(")"),)
  return _Instruction(
    name=name,
    root=root is not None,
    shape=shape,
    kind=kind.strip(),
    operands=operands,
    rest=rest,
  )


def _balanced(text: str) -> int:
  """Returns the position after the parenthesis that closes the one at the text's beginning."""
  depth = 0
  for place, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return place + 1
  return len(text)


def _dimensions(shape: str) -> list[int]:
  return [int(size) for size in _ARRAY.search(shape)[2].split(",") if size]


def _size(shape: str, *, whole: bool = False) -> int:
  """Returns the bytes of an array or of all arrays of a tuple.

  Args:
    whole: whether to include arrays in on-chip memory, which layouts mark by `S(...)`.
  """
  total = 0
  for kind, dimensions, layout in _ARRAY.findall(shape):
    if whole or "S(" not in layout:
      total += _bytes(kind, dimensions)
  return total


def _largest(shape: str) -> int:
  return max((_bytes(kind, sizes) for kind, sizes, _ in _ARRAY.findall(shape)), default=0)


def _bytes(kind: str, dimensions: str) -> int:
  bits = _BITS.get(kind) or int(re.sub(r"^\D+", "", kind.split("e")[0]) or 0)
  return math.prod(int(size) for size in dimensions.split(",") if size) * bits // 8
