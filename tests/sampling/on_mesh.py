"""Samples on a mesh of eight devices, in one process or two; a script that test_mesh runs.

Arguments: a file with weights and prompts, a file to write to, and for several processes the index
of this one, their number and the coordinator's address.
"""

import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer import layout
from sejax.parallel import layouts
from sejax.parallel.programs import ProgramCache
from sejax.planning import hlo
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes

PROMPTS, TRAJECTORIES, NEW_TOKENS = 8, 4, 12
EOS_IDS = tuple(range(2, 10))
GREEDY = Options(TRAJECTORIES, NEW_TOKENS, Filters(temperature=0.0), EOS_IDS, pack=False)
SAMPLED = Options(
  TRAJECTORIES,
  NEW_TOKENS,
  Filters(temperature=0.9, top_p=0.95),
  EOS_IDS,
  page_size=4,
  decode_steps=6,
  max_concurrent_rows=16,
)


def unflatten(flat: dict[str, np.ndarray]) -> dict:
  tree: dict = {}
  for path, value in flat.items():
    *parents, leaf = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = jnp.asarray(value)
  return tree


def request(data: dict[str, np.ndarray], rows: slice) -> Request:
  prompt = models.Prompt(data["ids"][rows], data["lengths"][rows], data["positions"][:, rows])
  return Request(
    prompt,
    record_hashes("mesh", [str(i) for i in range(PROMPTS)[rows]]),
    features=data["features"][rows],
    given=data["given"][rows],
    given_lengths=data["given_lengths"][rows],
  )


def sample(
  config: qwen.Qwen25VL, params: models.Params, request: Request, mesh: Mesh | None
) -> dict[str, np.ndarray]:
  found, compiled = {}, ProgramCache()
  for name, options in (("greedy", GREEDY), ("sampled", SAMPLED)):
    sampler = Sampler(config, options, mesh)
    sampler.compiled = compiled
    result = sampler(params, request, seed=3, step=4, role=Role.JUDGE)
    found |= {f"{name}_{field}": getattr(result, field) for field in ("tokens", "lengths", "logp")}
  return found


def decode_program(config: qwen.Qwen25VL, params: models.Params, mesh: Mesh) -> str:
  """Returns the HLO text of a decode run."""
  placed = layouts.place(params, mesh, layout.DECODING, jnp.float32)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), placed
  )
  sampler = Sampler(config, dataclasses.replace(SAMPLED, eos_ids=(1,), page_size=4), mesh)
  calls = sampler.programs.calls(
    shapes, None, images=None, prompts=PROMPTS, prompt_length=16, given_length=0
  )
  call = next(call for call in calls if call.name == "decode, a token")
  return call.program.lower(*call.args).compile().as_text()


def gathered(text: str, params: models.Params) -> list[str]:
  """Returns the shapes of the weights that a program moves between devices."""
  moved = re.findall(r"= f32\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)\(", text)
  shapes = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
  weights = {",".join(map(str, shape[-2:])) for shape in shapes}
  return [shape for shape in moved if ",".join(shape.split(",")[-2:]) in weights]


def main(source: str, target: str, number: int = 0, count: int = 1, address: str = "") -> None:
  if count > 1:
    jax.distributed.initialize(address, count, number)
  mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
  data = dict(np.load(source))
  config = qwen.Qwen25VL.from_hf(json.loads(str(data["config"])))
  # The run in one process tests the stacked cache, the run in two the layered one.
  config = dataclasses.replace(config, layered_cache=count > 1)
  params = unflatten({name[2:]: value for name, value in data.items() if name.startswith("p/")})
  size = PROMPTS // count
  rows = slice(number * size, (number + 1) * size)
  found = sample(config, params, request(data, rows), mesh)
  if count == 1:
    decoding = decode_program(config, params, mesh)
    found["gathered"] = np.array(gathered(decoding, params), str)
    found["collectives"] = json.dumps(hlo.cost(decoding).collectives)
  np.savez(target, **found)


if __name__ == "__main__":
  main(*sys.argv[1:3], *map(int, sys.argv[3:5]), *sys.argv[5:])
