"""Loads exported model directories in vLLM and compares greedy tokens with transformers.

    python experiments/interoperability/vllm_cpu.py DIRECTORY...

Both read the same directory, chat messages and picture, and compute in float32. vLLM runs in this
process, so that the names that it reads and the parameters that it fills can be listed. The last
line is JSON; the exit status is 1 unless every directory loads fully and gives the same tokens.

Runs without an accelerator in an environment of its own, where vLLM is built for the CPU. What is
not used is counted right only for vocabularies of a multiple of 64, to which vLLM pads others.
"""

import gc
import importlib.metadata
import json
import os
import sys

# Before vLLM is imported, which reads them.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import numpy as np
import torch
import transformers
import vllm
from PIL import Image
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

QUESTION = "How many dots are there?"
WIDTH, HEIGHT = 224, 168  # not square, so that exchanged axes would show
TOKENS = 64
LENGTH = 512  # of prompt and response, at most


def picture() -> Image.Image:
  """Returns smooth noise of many colours."""
  noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  return Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def reference(directory: str) -> tuple[list[int], list[int], list[float]]:
  """Returns transformers' prompt, greedy tokens and their log probabilities."""
  processor = transformers.AutoProcessor.from_pretrained(directory)
  model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype="float32")
  content = [{"type": "image", "image": picture()}, {"type": "text", "text": QUESTION}]
  inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    chat_template=processor.chat_template or processor.tokenizer.chat_template,
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
  )
  with torch.no_grad():
    found = model.generate(
      **inputs,
      do_sample=False,
      repetition_penalty=1.0,
      max_new_tokens=TOKENS,
      min_new_tokens=TOKENS,
      output_logits=True,
      return_dict_in_generate=True,
    )
  prompt = inputs["input_ids"][0]
  tokens = found.sequences[0, len(prompt) :]
  scores = torch.stack(found.logits)[:, 0].log_softmax(-1)
  return prompt.tolist(), tokens.tolist(), scores[range(len(tokens)), tokens].tolist()


def generate(directory: str, loaded: dict) -> tuple[list[int], list[int], list[float]]:
  """Returns the same by vLLM, and puts into `loaded` what it read."""
  original = DefaultModelLoader.load_weights

  def watched(self, model, *args, **kwargs):
    load, read = model.load_weights, {}

    def passed_on(weights):
      for name, tensor in weights:
        read[name] = tensor.numel()
        yield name, tensor

    def record(weights):
      filled = load(passed_on(weights))
      held = {name: x.numel() for name, x in model.named_parameters()}
      loaded.update(
        {
          "class": type(model).__name__,
          "tensors": len(read),
          "missing": sorted(set(held) - filled),
          "unused_numbers": sum(read.values()) - sum(held.values()),
        }
      )
      return filled

    model.load_weights = record
    original(self, model, *args, **kwargs)
    del model.load_weights

  DefaultModelLoader.load_weights = watched
  try:
    llm = vllm.LLM(
      directory,
      dtype="float32",
      enforce_eager=True,
      max_model_len=LENGTH,
      max_num_seqs=1,
      limit_mm_per_prompt={"image": {"count": 1, "width": WIDTH, "height": HEIGHT}, "video": 0},
      skip_mm_profiling=True,
      kv_cache_memory_bytes=2**28,
    )
    content = [{"type": "image_pil", "image_pil": picture()}, {"type": "text", "text": QUESTION}]
    options = vllm.SamplingParams(temperature=0, max_tokens=TOKENS, min_tokens=TOKENS, logprobs=0)
    (result,) = llm.chat([{"role": "user", "content": content}], options, use_tqdm=False)
  finally:
    DefaultModelLoader.load_weights = original
    llm = None
    gc.collect()
    cleanup_dist_env_and_memory()
  (output,) = result.outputs
  tokens = list(output.token_ids)
  scores = [row[token].logprob for row, token in zip(output.logprobs, tokens, strict=True)]
  return list(result.prompt_token_ids), tokens, scores


def compare(directory: str) -> dict:
  """Returns what loaded, and whether prompt and greedy tokens equal those of transformers."""
  loaded = {}
  try:
    prompt, tokens, scores = reference(directory)
    found = generate(directory, loaded)
  except Exception as error:  # Any failure is a result.
    return {**loaded, "error": f"{type(error).__name__}: {error}"[:1000]}
  differences = (abs(a - b) for a, b in zip(found[2], scores, strict=True))
  return {
    **loaded,
    "same_prompt": found[0] == prompt,
    "same_tokens": found[1] == tokens,
    "distinct_tokens": len(set(tokens)),
    "log_probability_difference": max(differences),
  }


def is_fine(result: dict) -> bool:
  """Whether all loaded and prompt and tokens are the same."""
  return (
    "error" not in result
    and not (result["missing"] or result["unused_numbers"])
    and result["same_prompt"]
    and result["same_tokens"]
  )


def main() -> int:
  """Compares every directory; returns the exit status."""
  models = {}
  for path in sys.argv[1:]:
    models[path] = compare(path)
    print(path, models[path], file=sys.stderr, flush=True)
  versions = {
    "vllm": vllm.__version__,
    "transformers": transformers.__version__,
    "torch": importlib.metadata.version("torch"),
  }
  print(json.dumps({**versions, "models": models}))
  return 0 if all(map(is_fine, models.values())) else 1


if __name__ == "__main__":
  sys.exit(main())
