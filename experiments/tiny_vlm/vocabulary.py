"""The tiny model's processor files: a small byte-level BPE and the settings of its images.

Special tokens, splitting and chat template are those of Qwen2.5-VL, the vocabulary is learnt from
the corpus, and images become 4 x 4 tokens of 14 x 14 pixels.
"""

import json
import pathlib
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

# Qwen2.5-VL's, as far as prompts of text and images need them.
SPECIAL = (
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|vision_start|>",
  "<|vision_end|>",
  "<|vision_pad|>",
  "<|image_pad|>",
  "<|video_pad|>",
)
# Its regular expression for words, but for one thing: a digit takes the blank before it along, so
# that a row of numbers is half as long.
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# What the published template does with messages of text and images.
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

# The words that the template adds to every conversation; the corpus holds them as often.
TURNS = ("system\nYou are a helpful assistant.", "user\n", "assistant\n")

IMAGE_SIDE, PATCH = 56, 7
PAPER = [0.957, 0.957, 0.926]  # the mean of the figures' tints becomes zero


def write(directory: pathlib.Path, texts: Iterable[str], size: int) -> None:
  """Learns the vocabulary and writes every file that `Processor.load` reads.

  Args:
    directory: where to.
    texts: the corpus.
    size: tokens in all, the special ones included.
  """
  directory.mkdir(parents=True, exist_ok=True)
  tokenizer = _train(texts, size - len(SPECIAL))
  tokenizer.save(str(directory / "tokenizer.json"))
  eos, pad = (tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>"))
  files = {
    "tokenizer_config.json": {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "eos_token": "<|im_end|>",
      "pad_token": "<|endoftext|>",
      "clean_up_tokenization_spaces": False,
      "model_max_length": 1024,
    },
    "preprocessor_config.json": {
      "image_processor_type": "Qwen2VLImageProcessor",
      "processor_class": "Qwen2_5_VLProcessor",
      "size": {"shortest_edge": (IMAGE_SIDE // 2) ** 2, "longest_edge": IMAGE_SIDE**2},
      "patch_size": PATCH,
      "temporal_patch_size": 2,
      "merge_size": 2,
      "image_mean": PAPER,
      "image_std": [0.25, 0.25, 0.25],
    },
    "generation_config.json": {"eos_token_id": [eos, pad], "pad_token_id": pad},
  }
  for name, content in files.items():
    (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
  (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _train(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(_WORDS), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  tokenizer.add_special_tokens(
    [tokenizers.AddedToken(name, normalized=False, special=True) for name in SPECIAL]
  )
  return tokenizer
