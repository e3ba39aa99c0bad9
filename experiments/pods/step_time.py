"""Least time that a step takes on TPUs or GPUs that are not there.

    python experiments/speed/simulate.py --lengths=FILE --shards=N --micro_batch_size=M \
      --calls=CALLS
    python experiments/pods/step_time.py --config=configs/geometry3k_qwen2_5_vl_7b.py \
      --topology=h100:8 --config.train.micro_batch_size=M --calls=CALLS [--parts=learner]

The simulation says how often each program is called and with how many rows, pages and prompts of a
shard; N are the row shards of the mesh. Here the programs are compiled by the chip's own compiler,
and their least time is read off as `--mode=compile` does it. That of a decode step is linear in
rows, pages and prompts: it is compiled for three sizes, and the bytes of a prompt are known. That
of a micro-batch is linear in the size of its rows; of what cuDNN's attention skips nothing is
counted. Ends with one JSON line: seconds by part and program.
"""

import collections
import dataclasses
import json
import pathlib

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from sejax import models
from sejax.config import parts
from sejax.parallel import layouts, meshes
from sejax.parallel.programs import ProgramCall, bytes_per_device
from sejax.planning import compilation, programs, topologies
from sejax.sampling import Options

_CONFIG = config_flags.DEFINE_config_file("config", None, "As that of sejax.main.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "As that of sejax.main.")
_CALLS = flags.DEFINE_string("calls", None, "What simulate.py writes with --calls.")
_PARTS = flags.DEFINE_list("parts", ["actor", "judge", "learner"], "Which parts of the step.")


class Estimate:
  """Compiles the programs of a configuration and adds up their times."""

  def __init__(self, config, topology: str):
    jax.config.update("jax_platforms", "cpu")
    self.chip = topologies.chip(topology)
    self.mesh = meshes.create(config.mesh, topologies.devices(topology))
    self.shards = layouts.row_shards(self.mesh)
    self.model = models.released(config.model.path)
    step = parts.planned_step(config)
    self.step = programs.with_room(step, self.model, self.mesh, int(self.chip.memory))

  def seconds(self, call: ProgramCall) -> float:
    """Returns the least time of one call, or of one trip."""
    row = compilation.compile_call(call, self.chip)
    if row.error:
      raise ValueError(f"{call.name} does not compile: {row.error}")
    return row.seconds

  def calls(self, role: str, **changes: int) -> dict[str, ProgramCall]:
    """Returns the calls of a role by name, with other options."""
    options: Options = dataclasses.replace(getattr(self.step.roles, role), **changes)
    roles = dataclasses.replace(self.step.roles, **{role: options})
    step = dataclasses.replace(self.step, roles=roles)
    found = {}
    for call in programs.of_step(step, self.model, self.mesh):
      if call.name.startswith(f"{role} "):
        found[call.name.removeprefix(f"{role} ")] = call
      elif found:
        break
    return found

  def decode_sizes(self, call: ProgramCall) -> tuple[int, int, int]:
    """Returns the rows, pages and prompts of a shard in a decode step."""
    _, _, prefix, _, _, batch = call.args
    sizes = len(batch.sequence), len(batch.table.row_of_page), len(prefix.lengths)
    return tuple(size // self.shards for size in sizes)

  def of_role(self, role: str, issued: list[list]) -> dict[str, float]:
    """Returns the seconds of a role's programs in a step.

    Args:
      issued: name, sizes and number of calls, from the simulation.
    """
    calls = self.calls(role)
    rows = len(calls["decode, a token"].args[-1].sequence)
    found = collections.Counter()
    for name in ("vision", "layout", "unstack"):
      if name in calls:
        found[name] = self.seconds(calls[name])

    prefix = calls["decode, a token"].args[2]
    prompt = bytes_per_device((prefix.keys, prefix.values)) / (len(prefix.lengths) / self.shards)
    prompt /= self.chip.bandwidth
    measured = []
    for changes in ({}, {"cache_tokens": 1}, {"cache_tokens": 1, "max_concurrent_rows": rows // 4}):
      call = self.calls(role, **changes)["decode, a token"]
      *sizes, prompts = self.decode_sizes(call)
      measured.append((1, *sizes, self.seconds(call) - prompts * prompt))
    measured = np.array(measured)
    fixed, per_row, per_page = np.linalg.solve(measured[:, :3], measured[:, 3])

    read = {
      name: (self.seconds(calls[name]), self.tokens(calls[name]))
      for name in ("prefill", "given tokens")
      if name in calls
    }
    for name, *sizes, count in issued:
      if name == "decode, a token":
        rows, pages, prompts = sizes
        found[name] += count * (fixed + per_row * rows + per_page * pages + prompt * prompts)
      elif name in read:
        seconds, tokens = read[name]
        found[name] += count * seconds * sizes[0] / tokens
    return {name: round(value, 2) for name, value in found.items()}

  def of_learner(self, issued: list[list]) -> dict[str, float]:
    """Returns the seconds of the log-prob passes and updates of a step.

    Args:
      issued: of micro-batches the share of the largest rows that theirs take and their number, and
        the keys that all tokens attend to.
    """
    calls = {call.name: call for call in programs.of_step(self.step, self.model, self.mesh)}
    names = ("take groups", "log-probs of policy", "log-probs of reference", "add gradient")
    once = ("zero gradient", "apply gradient")
    seconds = {name: self.seconds(calls[name]) for name in (*names, *once) if name in calls}
    minibatches = self.step.training.sizes.minibatches
    rows = sum(share * count for _, share, count in (x for x in issued if len(x) == 3))
    (pairs,) = (count for name, count in (x for x in issued if len(x) == 2) if name == "attention")
    found = {name: minibatches * seconds[name] for name in once}
    later = (minibatches - 1) / minibatches  # The first update computes these log-probs itself.
    for name, passes in zip(names, (1 + later, later, 1, 1), strict=True):
      if name in seconds:
        found[name] = rows * passes * seconds[name]
    if self.step.compute.on_devices(self.model, self.mesh).fused_attention:
      text = self.model.text
      flops = 4.0 * pairs * text.num_attention_heads * text.head_size * text.num_hidden_layers
      # Forward in the log-prob passes, again in the update and its recomputation, and backward.
      passes = later + 1 + 2 + 2.5
      found["attention"] = flops * passes / (self.mesh.size * self.chip.flops)
    return {name: round(value, 2) for name, value in found.items()}

  def tokens(self, call: ProgramCall) -> int:
    """Returns the tokens of a shard that a call reads, with padding."""
    if call.name.endswith("prefill"):
      _, _, _, rows, index, _ = call.args
      return rows.ids.shape[1] * len(index) // self.shards
    return call.args[-1].tokens.size // self.shards


def main(argv: list[str]) -> None:
  """Prints the times of all parts."""
  del argv
  config = _CONFIG.value.copy_and_resolve_references()
  config.model.dtype = "bfloat16"
  estimate = Estimate(config, _TOPOLOGY.value)
  issued = json.loads(pathlib.Path(_CALLS.value).read_text(encoding="utf-8"))
  result = {
    part: estimate.of_learner(issued[part])
    if part == "learner"
    else estimate.of_role(part, issued[part])
    for part in _PARTS.value
  }
  for part, found in result.items():
    print(part, *(f"{name} {value:g} s" for name, value in found.items()), sep="  ")
  total = sum(sum(found.values()) for found in result.values())
  print(json.dumps({"topology": _TOPOLOGY.value, "seconds": round(total, 1)} | result))


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "topology", "calls"])
  app.run(main)
