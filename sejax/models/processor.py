"""Converts images and chat messages to patches and token ids, and token ids to text, on the host.

Uses the torch-free classes of transformers with the files of a model directory: image processor
(PIL), tokenizer and chat template. The ids equal those of HF `Qwen2VLProcessor` and its successors
`Qwen2_5_VLProcessor` and `Qwen3VLProcessor`, with one difference: only the chat template can
produce special tokens. The text of messages is tokenized literally, so that `<|image_pad|>` in a
question stays text and takes the place of no image. See `sejax.text.messages` for the form of
messages.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import PIL.Image
import tokenizers
import transformers
from jaxtyping import Float32, Int32
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from sejax import storage
from sejax.errors import one_line, quoted
from sejax.models.tensor_files import parse_json
from sejax.text.messages import Message

_IMAGE_PAD, _VISION_START, _VISION_END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
_CHANNELS = 3
_VISION_TOKENS = (_VISION_START, _VISION_END, _IMAGE_PAD, "<|video_pad|>")

# Stands for the text of a message part while the chat template is rendered. Chat templates do not
# contain NUL, and texts are inserted after rendering, so a placeholder is never ambiguous.
_PLACEHOLDER = re.compile("\0(\\d+)\0")


class ImagePatches(NamedTuple):
  """The images of one prompt as patches.

  Attributes:
    patches: normalised pixels of each patch, in the order of HF `Qwen2VLImageProcessor`: image
      after image, and within an image, the `merge_size**2` patches of one token are consecutive.
    grids: (1, height, width) of each image in patches.
  """

  patches: Float32[np.ndarray, "S patch_dim"]
  grids: Int32[np.ndarray, "n 3"]


class PromptTokens(NamedTuple):
  """A tokenized prompt.

  Attributes:
    ids: token ids up to the candidate, or up to the assistant's response without a candidate. An
      image is one `<|image_pad|>` for each of its merged tokens.
    tail: what the chat template writes after the candidate, as texts and token ids, to be passed
      to `Processor.tokenize_candidate`; empty without a candidate.
  """

  ids: Int32[np.ndarray, " P"]
  tail: tuple[str | int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Processor:
  """Tokenizer, chat template and image processor of one model directory.

  Attributes:
    tokenizer: HF tokenizer with its chat template.
    image_processor: HF image processor.
    eos_ids: ids of the tokens that end a response.
  """

  tokenizer: transformers.PreTrainedTokenizerFast
  image_processor: transformers.Qwen2VLImageProcessorPil
  eos_ids: tuple[int, ...]

  @classmethod
  def load(
    cls,
    directory: str | os.PathLike,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
  ) -> Self:
    """Loads the processor of a model directory.

    Args:
      directory: holds `tokenizer.json`, `tokenizer_config.json`, a chat template in any of the
        three places that transformers reads, and the image processor's configuration.
      min_pixels: smaller images are enlarged to this area; None keeps the directory's value.
      max_pixels: larger images are reduced to this area; None keeps the directory's value.

    Raises:
      ValueError: a file or a special token is missing, a file cannot be read, or `min_pixels` is
        above `max_pixels`.
    """
    directory = storage.Path(directory)
    if not (directory / "tokenizer.json").exists():
      raise ValueError(f"{directory} has no tokenizer.json")
    try:
      tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
        directory, local_files_only=True
      )
    except Exception as error:  # transformers raises errors of many types for unreadable files.
      raise ValueError(
        f"{directory} has a tokenizer.json or tokenizer_config.json that cannot be read"
        f" ({one_line(error)}); download them again"
      ) from None
    # As in HF, a template file of the processor takes precedence over tokenizer_config.json.
    legacy = directory / "chat_template.json"
    if legacy.exists() and not (directory / "chat_template.jinja").exists():
      tokenizer.chat_template = parse_json(legacy.read_bytes(), legacy).get("chat_template")
    if not tokenizer.chat_template:
      raise ValueError(f"{directory} has no chat template; add chat_template.jinja")
    absent = [token for token in _VISION_TOKENS if token not in tokenizer.get_added_vocab()]
    if absent:
      raise ValueError(f"{directory / 'tokenizer.json'} lacks the special token {absent[0]}")
    return cls(
      tokenizer,
      _image_processor(directory, min_pixels, max_pixels),
      _eos_ids(directory, tokenizer),
    )

  @property
  def image_pad_id(self) -> int:
    """Id of the placeholder for one merged token of an image."""
    return self._added_tokens[_IMAGE_PAD]

  @property
  def vision_start_id(self) -> int:
    """Id of the token before an image."""
    return self._added_tokens[_VISION_START]

  @property
  def vision_end_id(self) -> int:
    """Id of the token after an image."""
    return self._added_tokens[_VISION_END]

  @property
  def pad_id(self) -> int:
    """Id of the padding token; the last of `eos_ids` if the tokenizer has none."""
    pad = self.tokenizer.pad_token_id
    return self.eos_ids[-1] if pad is None else pad

  def banned_ids(self, vocab_size: int) -> Int32[np.ndarray, " n"]:
    """Returns the ids that a response must never contain, in ascending order.

    These are the special tokens and vision tokens, except those that end a response, and the rows
    of the embedding table without a token in the tokenizer.

    Args:
      vocab_size: rows of the model's embedding table, V.
    """
    banned = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
    banned |= {self._added_tokens[token] for token in _VISION_TOKENS}
    banned |= set(range(vocab_size)) - set(self.tokenizer.get_vocab().values())
    return np.array(sorted(banned - set(self.eos_ids)), np.int32)

  def images(self, images: Sequence[PIL.Image.Image]) -> ImagePatches:
    """Resizes and normalises the images of one prompt and cuts them into patches.

    The result equals that of HF `Qwen2VLImageProcessorPil` bit for bit. It is computed faster, with
    a lookup table of the normalised value of each byte, see `pixel_values`.

    Args:
      images: RGB images, possibly none; neither side may be more than 200 times the other.

    Raises:
      ValueError: an image is not RGB or too elongated; the message has its index in `images`.
    """
    processor = self.image_processor
    if not images:
      patch_dim = _CHANNELS * processor.temporal_patch_size * processor.patch_size**2
      return ImagePatches(np.zeros((0, patch_dim), np.float32), np.zeros((0, 3), np.int32))
    for index, image in enumerate(images):
      if image.mode != "RGB":
        raise ValueError(f"image {index} has mode {image.mode}; convert it to RGB first")
      if max(image.size) > 200 * min(image.size):
        width, height = image.size
        raise ValueError(f"image {index} is {width}x{height}; no side may be 200 times the other")
    grids = self.grids([image.size for image in images])
    if processor.do_resize:
      images = [self._resized(image) for image in images]
    size, merge = processor.patch_size, processor.merge_size
    ends = grids.prod(axis=1).cumsum()
    shape = (ends[-1], _CHANNELS, processor.temporal_patch_size, size * size)
    patches = np.empty(shape, np.float32)
    for image, image_patches in zip(images, np.split(patches, ends[:-1]), strict=True):
      pixels = np.asarray(image).reshape(
        -1, merge, size, image.width // size // merge, merge, size, _CHANNELS
      )
      # One line of merged tokens at a time, so that the data stays in the CPU's cache.
      for line, target in zip(pixels, np.split(image_patches, len(pixels)), strict=True):
        line = line.transpose(2, 0, 3, 5, 1, 4).reshape(-1, _CHANNELS, size * size)
        for channel, table in enumerate(self.pixel_values):
          target[:, channel] = np.take(table, line[:, channel])[:, None]
    return ImagePatches(patches.reshape(len(patches), -1), grids)

  def grids(self, sizes: Sequence[tuple[int, int]]) -> Int32[np.ndarray, "n 3"]:
    """Returns the grids that `images` computes for images of these sizes.

    Args:
      sizes: (width, height) in pixels, neither more than 200 times the other; possibly none.
    """
    if self.image_processor.do_resize:
      sizes = [self._resized_size(size) for size in sizes]
    side = self.image_processor.patch_size
    grids = [(1, height // side, width // side) for width, height in sizes]
    return np.array(grids, np.int32).reshape(-1, 3)

  def prompt(
    self,
    messages: Sequence[Message],
    grids: Int32[np.ndarray, "n 3"] | Sequence[Sequence[int]] = (),
  ) -> PromptTokens:
    """Tokenizes chat messages up to the beginning of the assistant's response.

    Messages may contain a `{"type": "candidate"}` part. The ids then end before it, and
    `tokenize_candidate` returns the ids from there on. So the Judge's prompt is prefilled once per
    question, whatever the number of candidates.

    Args:
      messages: see `sejax.text.messages`. Text is tokenized literally, special tokens included.
      grids: grids of the images, from `images`, one for each image part in the same order.

    Raises:
      ValueError: the messages have another number of image parts than there are grids, an image or
        a second candidate follows the candidate, or the chat template leaves out a part.
    """
    segments = self._render(messages)
    end = segments.index(None) if None in segments else len(segments)
    head, tail = segments[:end], tuple(segments[end + 1 :])
    if None in tail or self.image_pad_id in tail:
      raise ValueError("after the candidate there can be neither an image nor another candidate")
    if head.count(self.image_pad_id) != len(grids):
      raise ValueError(
        f"the messages hold {head.count(self.image_pad_id)} image parts for {len(grids)} images"
      )
    merge = self.image_processor.merge_size**2
    image_tokens = iter(int(np.prod(grid)) // merge for grid in grids)
    expanded = []
    for segment in head:
      expanded += [segment] * (next(image_tokens) if segment == self.image_pad_id else 1)
    return PromptTokens(self._encode(expanded), tail)

  def tokenize_candidate(
    self, tail: Sequence[str | int], candidate: str
  ) -> Int32[np.ndarray, " T"]:
    """Tokenizes a candidate and the tail after it, to be appended to a prompt's ids.

    Args:
      tail: `PromptTokens.tail` of the prompt.
      candidate: text of the candidate; tokenized literally.

    Raises:
      ValueError: the text has no UTF-8 form, see `encode_text`.
    """
    return self._encode([candidate, *tail])

  def encode_text(self, text: str) -> Int32[np.ndarray, " T"]:
    """Tokenizes text literally; names of special tokens in it stay text.

    Raises:
      ValueError: the text holds half of a surrogate pair, which has no UTF-8 form.
    """
    text.encode()  # Raises a clear error, which the tokenizers package does not.
    return np.array(self._plain_tokenizer.encode(text).ids, np.int32)

  def decode(self, ids: Sequence[int] | Int32[np.ndarray, " T"]) -> str:
    """Converts token ids to text without special tokens."""
    return self.tokenizer.decode(
      np.asarray(ids).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )

  def _resized(self, image: PIL.Image.Image) -> PIL.Image.Image:
    """Resizes an image to the pixel limits and to whole merged tokens, as HF does."""
    return image.resize(self._resized_size(image.size), self.image_processor.resample)

  def _resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (width, height) that an image of a (width, height) is resized to."""
    processor = self.image_processor
    factor = processor.patch_size * processor.merge_size
    limits = processor.size["shortest_edge"], processor.size["longest_edge"]
    height, width = smart_resize(size[1], size[0], factor, *limits)
    return width, height

  @functools.cached_property
  def pixel_values(self) -> Float32[np.ndarray, "3 256"]:
    """Normalised value of each byte in each channel, computed with HF's own functions."""
    processor = self.image_processor
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (_CHANNELS, 1, 256))
    if processor.do_rescale:
      values = processor.rescale(values, processor.rescale_factor)
    if processor.do_normalize:
      values = processor.normalize(values, processor.image_mean, processor.image_std)
    return np.asarray(values, np.float32)[:, 0]

  def _render(self, messages: Sequence[Message]) -> list[str | int | None]:
    """Renders the chat template to segments: literal texts, token ids, and None for the candidate.

    Raises:
      ValueError: the template does not contain every part exactly once.
    """
    with_placeholders, texts = _replace_texts(messages)
    rendered = self.tokenizer.apply_chat_template(
      with_placeholders, tokenize=False, add_generation_prompt=True
    )
    segments, found = [], []
    # The template's text and the numbers of placeholders alternate.
    for i, piece in enumerate(_PLACEHOLDER.split(rendered)):
      if i % 2:
        found.append(int(piece))
        segments.append(texts[int(piece)])
      else:
        # Only here are names of special tokens converted to ids.
        pieces = self._added_tokens_pattern.split(piece)
        segments += [self._added_tokens.get(token, token) for token in pieces if token]
    if sorted(found) != list(range(len(texts))):
      raise ValueError("the chat template leaves out or repeats a part of the messages")
    return segments

  def _encode(self, segments: Sequence[str | int]) -> Int32[np.ndarray, " T"]:
    """Tokenizes segments; adjacent texts are joined before they are tokenized, as HF does."""
    ids, text = [], ""
    for segment in segments:
      if isinstance(segment, str):
        text += segment
        continue
      if text:
        ids += self.encode_text(text).tolist()
        text = ""
      ids.append(segment)
    return np.array([*ids, *self.encode_text(text)], np.int32)

  @functools.cached_property
  def _added_tokens(self) -> dict[str, int]:
    return self.tokenizer.get_added_vocab()

  @functools.cached_property
  def _added_tokens_pattern(self) -> re.Pattern:
    longest_first = sorted(self._added_tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

  @functools.cached_property
  def _plain_tokenizer(self) -> tokenizers.Tokenizer:
    """The tokenizer without added tokens, so that their names in a text stay text."""
    full = self.tokenizer.backend_tokenizer
    plain = tokenizers.Tokenizer(full.model)
    if full.normalizer is not None:
      plain.normalizer = full.normalizer
    plain.pre_tokenizer = full.pre_tokenizer
    return plain


def _replace_texts(
  messages: Sequence[Message],
) -> tuple[list[dict[str, Any]], list[str | None]]:
  """Replaces every text in messages by a numbered placeholder.

  Returns:
    The messages with placeholders, and the text of each placeholder, None for the candidate.
  """
  texts: list[str | None] = []
  with_placeholders = []
  for message in messages:
    content = message["content"]
    if isinstance(content, str):
      content = _placeholder(content, texts)
    else:
      content = [_replace_text_of_part(part, texts) for part in content]
    with_placeholders.append({"role": message["role"], "content": content})
  return with_placeholders, texts


def _replace_text_of_part(part: Mapping[str, str], texts: list[str | None]) -> dict[str, str]:
  match part:
    case {"type": "text", "text": str(text)}:
      return {"type": "text", "text": _placeholder(text, texts)}
    case {"type": "candidate"}:
      return {"type": "text", "text": _placeholder(None, texts)}
    case {"type": "image"}:
      return {"type": "image"}
  raise ValueError(f"a message part is {quoted(part)}; its type must be text, image or candidate")


def _placeholder(text: str | None, texts: list[str | None]) -> str:
  """Appends a text to `texts` and returns the placeholder with its number."""
  texts.append(text)
  return f"\0{len(texts) - 1}\0"


def _image_processor(
  directory: storage.Path, min_pixels: int | None, max_pixels: int | None
) -> transformers.Qwen2VLImageProcessorPil:
  """Loads the image processor; limits that are not None replace those of the directory."""
  kind = transformers.Qwen2VLImageProcessorPil
  try:
    settings, _ = kind.get_image_processor_dict(directory, local_files_only=True)
  except OSError as error:
    raise ValueError(f"{directory} has no preprocessor_config.json") from error
  # Published files state the limits as `size`, as `min_pixels` and `max_pixels`, or as both. The
  # constructor is given `size`, which all versions of transformers obey.
  size = {**kind.size, **(settings.pop("size", None) or {})}
  for key, name, given in (
    ("shortest_edge", "min_pixels", min_pixels),
    ("longest_edge", "max_pixels", max_pixels),
  ):
    limits = (given, settings.pop(name, None), size[key])
    size[key] = next(limit for limit in limits if limit is not None)
  low, high = size["shortest_edge"], size["longest_edge"]
  if not 0 < low <= high:
    raise ValueError(f"min_pixels is {low} and max_pixels {high}; 0 < min <= max must hold")
  return kind(**settings, size={"shortest_edge": low, "longest_edge": high})


def _eos_ids(
  directory: storage.Path, tokenizer: transformers.PreTrainedTokenizerFast
) -> tuple[int, ...]:
  """Returns the ids of the tokens that end a response, from the same files as HF `generate`."""
  path = directory / "generation_config.json"
  found = parse_json(path.read_bytes(), path).get("eos_token_id") if path.exists() else None
  found = tokenizer.eos_token_id if found is None else found
  if found is None:
    raise ValueError(f"{directory} names no token that ends a response; set eos_token")
  return (found,) if isinstance(found, int) else tuple(found)
