"""`--mode=compile --topology=v5e:8x8`: a step's programs for TPUs or GPUs that are not there.

Compiles each program of a training step with the compiler of the TPU (extra `tpu`) or GPU (extra
`cuda`), and prints its memory, operations and traffic on one chip.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import tqdm

from sejax import models
from sejax.errors import one_line
from sejax.parallel import chips, meshes
from sejax.parallel.programs import ProgramCall
from sejax.planning import hlo, topologies
from sejax.planning import programs as step_programs
from sejax.rollout import checks

_GIB = 2**30


class Row(NamedTuple):
  """One program of the report; bytes and operations are of one chip and one call.

  Where a call has trips, what follows the peak is of one trip.

  Attributes:
    program: name of the call.
    collectives: number of collectives, by kind; of a trip, rounded up.
    arguments: bytes of the arguments.
    temporaries: bytes of temporary arrays.
    peak: most bytes in use, with all arrays that the run keeps meanwhile.
    flops: floating-point operations of matrix products.
    traffic: bytes read from and written to the chip's memory.
    arriving: bytes received by collectives.
    largest: bytes of the largest result of a collective.
    seconds: least time, by the chip's peak rates.
    bound: the rate that decides it: compute, memory or network.
    error: why the program does not compile; empty if it does.
  """

  program: str
  collectives: dict[str, int]
  arguments: int = 0
  temporaries: int = 0
  peak: int = 0
  flops: float = 0.0
  traffic: float = 0.0
  arriving: float = 0.0
  largest: int = 0
  seconds: float = 0.0
  bound: str = ""
  error: str = ""


def run(
  step: step_programs.Step,
  *,
  model: str,
  mesh_sizes: Mapping[str, int],
  topology: str,
  programs: Sequence[str] = (),
) -> bool:
  """Compiles the programs, prints the report, and returns whether all fit the chip's memory.

  Args:
    model: local model directory, or the hub name of a released model.
    mesh_sizes: size of each mesh axis; their product must be the topology's devices.
    topology: such as `v5e:8x8` or `h100:8`, see `topologies`.
    programs: parts of the names of the programs to compile; empty compiles all.

  Raises:
    ValueError: the topology is unknown, or its compiler is not installed.
  """
  chip = topologies.chip(topology)
  # Without it, jax would look for the devices of the platform whose compiler is loaded.
  jax.config.update("jax_platforms", "cpu")
  mesh = meshes.create(mesh_sizes, topologies.devices(topology))
  checks.check_rows(mesh, step.row_sizes)
  opened = _model(model)
  step = step_programs.with_room(step, opened, mesh, int(chip.memory))
  chosen = [
    call
    for call in step_programs.of_step(step, opened, mesh)
    if not programs or any(part in call.name for part in programs)
  ]
  rows = []
  for call in tqdm.tqdm(chosen, topology):
    rows.append(compile_call(call, chip))
    tqdm.tqdm.write(_line(rows[-1], chip), file=sys.stderr)
  fits = all(not row.error and row.peak <= chip.memory for row in rows)
  axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
  print(_table(f"{model} on {topology} ({axes})", rows, chip))
  room = {
    role: {"max_concurrent_rows": options.max_concurrent_rows, "cache_tokens": options.cache_tokens}
    for role, options in (("actor", step.roles.actor), ("judge", step.roles.judge))
    if role == "actor" or step.judged
  }
  print(*(f"{role}: {_room_line(**sizes)}" for role, sizes in room.items()), sep="\n")
  result = {"topology": topology, "mesh": dict(mesh.shape), "fits": fits, "room": room}
  print(json.dumps(result | {"programs": [row._asdict() for row in rows]}))
  return fits


def _model(path: str) -> models.Model:
  """Returns the model of a directory, or a released one by its name, which needs no files."""
  known = None if os.path.isdir(path) else models.released(path)
  return known or models.load_config(path)


def compile_call(call: ProgramCall, chip: chips.Chip) -> Row:
  """Compiles a program for a chip, and reads off what it takes of it."""
  try:
    compiled = call.program.lower(*call.args).compile()
  except jax.errors.JaxRuntimeError as error:
    return Row(call.name, {}, error=one_line(error, 300))
  memory = compiled.memory_analysis()
  cost = hlo.cost(compiled.as_text(), open_trips=call.trips)
  flops, traffic = cost.flops / call.trips, cost.bytes / call.trips
  arriving = sum(cost.collective_bytes.values()) / call.trips
  times = {
    "compute": flops / chip.flops,
    "memory": traffic / chip.bandwidth,
    "network": arriving / chip.interconnect,
  }
  bound = max(times, key=times.get)
  made = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
  return Row(
    program=call.name,
    arguments=memory.argument_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    peak=call.alive_bytes + made + memory.generated_code_size_in_bytes,
    flops=flops,
    traffic=traffic,
    collectives={kind: -(-count // call.trips) for kind, count in cost.collectives.items()},
    arriving=arriving,
    largest=cost.largest,
    seconds=times[bound],
    bound=bound,
  )


def _room_line(max_concurrent_rows: int | None, cache_tokens: int | None) -> str:
  """Returns what a role decodes at once, as a line of the report."""
  rows = "all rows" if max_concurrent_rows is None else f"{max_concurrent_rows:,} rows"
  return f"{rows} at once, {cache_tokens or 0:,} tokens in the KV cache of a row shard"


def _table(title: str, rows: Sequence[Row], chip: chips.Chip) -> str:
  lines = [f"\n{title}, {chip.memory / _GIB:.2f} GiB a chip; figures of one chip", _HEADER]
  return "\n".join([*lines, *(_line(row, chip) for row in rows)])


_HEADER = (
  f"{'program':<24}{'arguments':>10}{'temp.':>8}{'peak':>8} GiB {'TFLOP':>9}{'GB':>9}"
  f"{'GB in':>9}{'largest':>9} MiB {'at least':>10}  collectives"
)


def _line(row: Row, chip: chips.Chip) -> str:
  if row.error:
    return f"{row.program:<24}  does not compile: {row.error}"
  mark = " " if row.peak <= chip.memory else "!"
  kinds = ", ".join(f"{count} {kind}" for kind, count in row.collectives.items()) or "none"
  return (
    f"{row.program:<24}{row.arguments / _GIB:>10.2f}{row.temporaries / _GIB:>8.2f}"
    f"{row.peak / _GIB:>8.2f}{mark}    {row.flops / 1e12:>9.3g}{row.traffic / 1e9:>9.3g}"
    f"{row.arriving / 1e9:>9.3g}{row.largest / 2**20:>9.1f}     {1e3 * row.seconds:>7.1f} ms"
    f"  {kinds} ({row.bound})"
  )
