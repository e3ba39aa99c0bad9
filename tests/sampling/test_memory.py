"""Memory of the sampler's compiled programs: the sequences of a group share one prefix."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sejax.models import qwen2_5_vl as qwen
from sejax.parallel.programs import with_shardings
from sejax.sampling import Filters, Options, Sampler
from tests.models import torch_reference

pytestmark = pytest.mark.long

GROUPS, PROMPT, NEW_TOKENS = 2, 1024, 32


@pytest.fixture(scope="module")
def config() -> qwen.Qwen25VL:
  tiny = torch_reference.tiny_config()
  return dataclasses.replace(tiny, text=dataclasses.replace(tiny.text, num_hidden_layers=8))


def peak_bytes(program: jax.stages.Compiled) -> int:
  memory = program.memory_analysis()
  sizes = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  return sizes - memory.alias_size_in_bytes


def programs(config: qwen.Qwen25VL, members: int) -> dict[str, jax.stages.Compiled]:
  mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
  params = jax.eval_shape(config.init, jax.random.key(0))
  params = with_shardings(params, NamedSharding(mesh, PartitionSpec()))
  # A page for each sequence, of no more positions than it has tokens.
  sampler = Sampler(
    config, Options(members, NEW_TOKENS, Filters(top_p=0.9), (1,), page_size=NEW_TOKENS), mesh
  )
  calls = sampler.programs.calls(
    params, None, images=None, prompts=GROUPS, prompt_length=PROMPT, given_length=0
  )
  return {
    call.name: call.program.lower(*call.args).compile()
    for call in calls
    if call.name in ("prefill", "decode, a token")
  }


def test_trajectories_share_their_prefix(config):
  """Going from one to eight members adds less than a tenth of seven copies of the prefixes."""
  one, eight = programs(config, 1), programs(config, 8)
  assert len(one) == 2
  text = config.text
  prefix = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_size * PROMPT * 4
  copies = 7 * GROUPS * prefix
  for name in one:
    added = peak_bytes(eight[name]) - peak_bytes(one[name])
    assert added < 0.1 * copies, f"{name} adds {added / copies:.1%}"
