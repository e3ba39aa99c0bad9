"""Memory of the sampler's compiled programs: the sequences of a group share one prefix."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sejax.models import qwen2_5_vl as qwen
from sejax.sampling import Filters, decode, packing, scheduler
from tests.models import torch_reference

GROUPS, PROMPT, CACHE_LENGTH = 2, 1024, 32


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
  shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
  params = jax.eval_shape(config.init, jax.random.key(0))
  rows = packing.PromptRows(
    ids=shape((GROUPS, PROMPT)),
    lengths=shape((GROUPS,)),
    positions=shape((GROUPS, 3, PROMPT)),
    features=None,
    given=None,
    given_lengths=None,
    keys=jax.ShapeDtypeStruct((GROUPS, members, 2), jnp.uint32),
    limit=shape((GROUPS, members)),
  )
  state = jax.eval_shape(
    functools.partial(
      packing.empty_state,
      model=config,
      slots=GROUPS,
      members=members,
      prompt_length=PROMPT,
      cache_length=CACHE_LENGTH,
      dtype=jnp.float32,
    )
  )
  decode_tokens = functools.partial(
    decode.decode_tokens,
    model=config,
    mesh=mesh,
    filters=Filters(top_p=0.9),
    eos_ids=(1,),
    steps=CACHE_LENGTH,
    attended_length=CACHE_LENGTH,
  )
  active = jax.ShapeDtypeStruct((GROUPS, members), bool)
  thresholds = shape((len(scheduler.sizes(members)),))
  prefill = functools.partial(packing.prefill, model=config, mesh=mesh)
  return {
    "prefill": jax.jit(prefill).lower(params, rows, shape((GROUPS,))).compile(),
    "decode": jax.jit(decode_tokens, donate_argnums=1)
    .lower(params, state, active, thresholds)
    .compile(),
  }


def test_trajectories_share_their_prefix(config):
  """Going from one to eight members adds less than a tenth of seven copies of the prefixes."""
  one, eight = programs(config, 1), programs(config, 8)
  text = config.text
  prefix = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_size * PROMPT * 4
  copies = 7 * GROUPS * prefix
  for name in one:
    added = peak_bytes(eight[name]) - peak_bytes(one[name])
    assert added < 0.1 * copies, f"{name} adds {added / copies:.1%}"
