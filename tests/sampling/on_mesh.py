"""Samples on a mesh of eight devices, in one process or two; run by test_mesh.

Arguments: a file of weights and prompts, a file to write to, and for several processes the number
of this one, their count and the coordinator's address.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sejax.models import qwen2_5_vl as qwen
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes
from tests.models import torch_reference

PROMPTS, TRAJECTORIES, NEW_TOKENS = 8, 4, 12
EOS_IDS = tuple(range(2, 10))
GREEDY = Options(TRAJECTORIES, NEW_TOKENS, Filters(temperature=0.0), EOS_IDS, pack=False)
SAMPLED = Options(
  TRAJECTORIES, NEW_TOKENS, Filters(temperature=0.9, top_p=0.95), EOS_IDS, run=6, groups=4
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
  prompt = qwen.Prompt(data["ids"][rows], data["lengths"][rows], data["positions"][:, rows])
  return Request(
    prompt,
    record_hashes("mesh", [str(i) for i in range(PROMPTS)[rows]]),
    given=data["given"][rows],
    given_lengths=data["given_lengths"][rows],
  )


def sample(
  config: qwen.Config, params: qwen.Params, request: Request, mesh: Mesh | None
) -> dict[str, np.ndarray]:
  found = {}
  for name, options in (("greedy", GREEDY), ("sampled", SAMPLED)):
    sampler = Sampler(config, options, mesh)
    result = sampler(params, request, seed=3, step=4, role=Role.JUDGE)
    found |= {f"{name}_{field}": getattr(result, field) for field in ("tokens", "lengths", "logp")}
  return found


def main(source: str, target: str, number: int = 0, count: int = 1, address: str = "") -> None:
  if count > 1:
    jax.distributed.initialize(address, count, number)
  jax.config.update("jax_disable_most_optimizations", True)
  mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
  data = dict(np.load(source))
  params = unflatten({name[2:]: value for name, value in data.items() if name.startswith("p/")})
  size = PROMPTS // count
  rows = slice(number * size, (number + 1) * size)
  found = sample(torch_reference.tiny_config(), params, request(data, rows), mesh)
  np.savez(target, **found)


if __name__ == "__main__":
  main(*sys.argv[1:3], *map(int, sys.argv[3:5]), *sys.argv[5:])
