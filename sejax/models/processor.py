"""Images and messages to patches and token ids, and token ids back to text; host only.

Runs the torch-free classes of transformers on the files of a model directory: image processor
(PIL), tokenizer and chat template. The ids equal those of HF `Qwen2_5_VLProcessor`, with one
difference: only the chat template writes special tokens. What a person or a model wrote is
tokenized as plain text, so a `<|image_pad|>` typed in a question stays text and captures no image.
See `sejax.text.messages` for the form of messages.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import PIL.Image
import tokenizers
import transformers
from jaxtyping import Float32, Int32
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from sejax.errors import quoted, said
from sejax.models.tensor_files import parse_json
from sejax.text.messages import Message

_IMAGE_PAD, _VISION_START, _VISION_END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
_CHANNELS = 3
_VISION_TOKENS = (_VISION_START, _VISION_END, _IMAGE_PAD, "<|video_pad|>")

# Stands for a part's text while the chat template is rendered. NUL occurs in no chat template, and
# what people wrote is not in the rendered string, so it cannot be confused with either.
_SLOT = re.compile("\0(\\d+)\0")


class ImagePatches(NamedTuple):
  """The images of one prompt.

  Attributes:
    patches: normalised pixels of every patch, in the order of HF `Qwen2VLImageProcessor`: image
      after image, and within an image the patches of one merged token side by side.
    grids: for each image 1 (a still), and its height and width in patches.
  """

  patches: Float32[np.ndarray, "S patch_dim"]
  grids: Int32[np.ndarray, "n 3"]


class PromptTokens(NamedTuple):
  """A tokenized prompt.

  Attributes:
    ids: the tokens; an image is as many `<|image_pad|>` as it has merged tokens.
    tail: what the chat template writes after the candidate, as text and token ids; empty for
      messages without a candidate. An argument of `Processor.continuation`.
  """

  ids: Int32[np.ndarray, " P"]
  tail: tuple[str | int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Processor:
  """The tokenizer, chat template and image processor of one model directory.

  Attributes:
    tokenizer: HF tokenizer, its chat template included.
    image_processor: HF image processor.
    eos_ids: tokens that end a response.
  """

  tokenizer: transformers.PreTrainedTokenizerFast
  image_processor: transformers.Qwen2VLImageProcessorPil
  eos_ids: tuple[int, ...]

  @classmethod
  def load(
    cls,
    directory: str | pathlib.Path,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
  ) -> Self:
    """Reads the processor of a model directory.

    Args:
      directory: as published: `tokenizer.json`, `tokenizer_config.json`, a chat template in any of
        the three places where transformers looks, and the image processor's configuration.
      min_pixels: smaller images are enlarged to this area; None keeps the directory's value.
      max_pixels: larger images are reduced to this area; None keeps the directory's value.

    Raises:
      ValueError: a file or a token that a vision-language prompt needs is missing, or the pixel
        limits exclude each other.
    """
    directory = pathlib.Path(directory)
    if not (directory / "tokenizer.json").exists():
      raise ValueError(f"{directory} has no tokenizer.json")
    try:
      tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
        directory, local_files_only=True
      )
    except Exception as error:  # Whatever transformers says of a file that is none of its own.
      raise ValueError(
        f"{directory} has a tokenizer.json or tokenizer_config.json that cannot be read"
        f" ({said(error)}); download them again"
      ) from None
    # As HF: a template file of the processor's goes before the one in tokenizer_config.json.
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
    """The placeholder of one merged token of an image."""
    return self._added[_IMAGE_PAD]

  @property
  def vision_start_id(self) -> int:
    """The token before an image."""
    return self._added[_VISION_START]

  @property
  def vision_end_id(self) -> int:
    """The token after an image."""
    return self._added[_VISION_END]

  @property
  def pad_id(self) -> int:
    """The token that fills a row; the last of `eos_ids` where the tokenizer has none."""
    pad = self.tokenizer.pad_token_id
    return self.eos_ids[-1] if pad is None else pad

  def banned_ids(self, vocab_size: int) -> Int32[np.ndarray, " n"]:
    """Returns the ids that a response must never contain, ascending.

    These are the special tokens, the vision tokens among them, except those that end a response,
    and the rows of the embedding to which the tokenizer gives no token.

    Args:
      vocab_size: rows of the model's embedding, V.
    """
    banned = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
    banned |= {self._added[token] for token in _VISION_TOKENS}
    banned |= set(range(vocab_size)) - set(self.tokenizer.get_vocab().values())
    return np.array(sorted(banned - set(self.eos_ids)), np.int32)

  def images(self, images: Sequence[PIL.Image.Image]) -> ImagePatches:
    """Resizes, normalises and cuts the images of one prompt into patches.

    Equal bit for bit to HF `Qwen2VLImageProcessorPil`; what a byte becomes is looked up.

    Args:
      images: RGB, of at most 200 times the one side than the other; there may be none.

    Raises:
      ValueError: an image is not RGB or too elongated; the message has its place in `images`.
    """
    processor = self.image_processor
    if not images:
      patch_dim = _CHANNELS * processor.temporal_patch_size * processor.patch_size**2
      return ImagePatches(np.zeros((0, patch_dim), np.float32), np.zeros((0, 3), np.int32))
    for place, image in enumerate(images):
      if image.mode != "RGB":
        raise ValueError(f"image {place} has mode {image.mode}; convert it to RGB first")
      if max(image.size) > 200 * min(image.size):
        width, height = image.size
        raise ValueError(f"image {place} is {width}x{height}; no side may be 200 times the other")
    grids = self.grids([image.size for image in images])
    if processor.do_resize:
      images = [self._resized(image) for image in images]
    size, merge = processor.patch_size, processor.merge_size
    ends = grids.prod(axis=1).cumsum()
    shape = (ends[-1], _CHANNELS, processor.temporal_patch_size, size * size)
    patches = np.empty(shape, np.float32)
    for image, own in zip(images, np.split(patches, ends[:-1]), strict=True):
      pixels = np.asarray(image).reshape(
        -1, merge, size, image.width // size // merge, merge, size, _CHANNELS
      )
      # One line of merged tokens after the other, so that what is looked up stays in the cache.
      for line, target in zip(pixels, np.split(own, len(pixels)), strict=True):
        line = line.transpose(2, 0, 3, 5, 1, 4).reshape(-1, _CHANNELS, size * size)
        for channel, table in enumerate(self.pixel_values):
          target[:, channel] = np.take(table, line[:, channel])[:, None]
    return ImagePatches(patches.reshape(len(patches), -1), grids)

  def grids(self, sizes: Sequence[tuple[int, int]]) -> Int32[np.ndarray, "n 3"]:
    """Returns the grids that `images` makes of images with these widths and heights.

    Args:
      sizes: in pixels, no side more than 200 times the other; there may be none.
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
    """Tokenizes messages up to where the assistant begins, images expanded to placeholders.

    A `{"type": "candidate"}` part divides the messages: `ids` end where it stands, and
    `continuation` gives the rest once the candidate is known. So a Judge's prompt is read once per
    question, whatever the number of candidates.

    Args:
      messages: see the module's docstring; text is taken literally, special tokens in it too.
      grids: those of `images`, one for each image part, in the same order.

    Raises:
      ValueError: the number of image parts is not that of the grids, an image stands after the
        candidate, or the chat template leaves out a part.
    """
    segments = self._segments(messages)
    place = segments.index(None) if None in segments else len(segments)
    head, tail = segments[:place], tuple(segments[place + 1 :])
    if None in tail or self.image_pad_id in tail:
      raise ValueError("after the candidate there can be neither an image nor another candidate")
    if head.count(self.image_pad_id) != len(grids):
      raise ValueError(
        f"the messages hold {head.count(self.image_pad_id)} image parts for {len(grids)} images"
      )
    merge = self.image_processor.merge_size**2
    tokens = iter(int(np.prod(grid)) // merge for grid in grids)
    expanded = []
    for segment in head:
      expanded += [segment] * (next(tokens) if segment == self.image_pad_id else 1)
    return PromptTokens(self._encode(expanded), tail)

  def continuation(self, tail: Sequence[str | int], candidate: str) -> Int32[np.ndarray, " T"]:
    """Returns the tokens that follow a prompt with a candidate part.

    Args:
      tail: the prompt's.
      candidate: the candidate's text, taken literally.

    Raises:
      ValueError: as `encode_text`.
    """
    return self._encode([candidate, *tail])

  def encode_text(self, text: str) -> Int32[np.ndarray, " T"]:
    """Tokenizes plain text: the ids never contain an added token, whatever the text.

    Raises:
      ValueError: the text holds half a surrogate pair, which has no UTF-8 form.
    """
    text.encode()  # tokenizers' own error does not say what is wrong with the text.
    return np.array(self._plain.encode(text).ids, np.int32)

  def decode(self, ids: Sequence[int] | Int32[np.ndarray, " T"]) -> str:
    """Returns the text of tokens, special tokens left out."""
    return self.tokenizer.decode(
      np.asarray(ids).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )

  def _resized(self, image: PIL.Image.Image) -> PIL.Image.Image:
    """Brings an image into the pixel range, its sides to whole merged tokens, as HF does."""
    return image.resize(self._resized_size(image.size), self.image_processor.resample)

  def _resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the width and height that an image of this width and height is resized to."""
    processor = self.image_processor
    factor = processor.patch_size * processor.merge_size
    limits = processor.size["shortest_edge"], processor.size["longest_edge"]
    height, width = smart_resize(size[1], size[0], factor, *limits)
    return width, height

  @functools.cached_property
  def pixel_values(self) -> Float32[np.ndarray, "3 256"]:
    """What each byte becomes in each channel, by HF's own arithmetic."""
    processor = self.image_processor
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (_CHANNELS, 1, 256))
    if processor.do_rescale:
      values = processor.rescale(values, processor.rescale_factor)
    if processor.do_normalize:
      values = processor.normalize(values, processor.image_mean, processor.image_std)
    return np.asarray(values, np.float32)[:, 0]

  def _segments(self, messages: Sequence[Message]) -> list[str | int | None]:
    """Renders the chat template to literal texts, token ids and, for the candidate, None."""
    slotted, texts = _take_out_texts(messages)
    rendered = self.tokenizer.apply_chat_template(
      slotted, tokenize=False, add_generation_prompt=True
    )
    segments, found = [], []
    for place, piece in enumerate(_SLOT.split(rendered)):
      if place % 2:
        found.append(int(piece))
        segments.append(texts[int(piece)])
      else:
        # The template's own text: its special tokens are tokens.
        pieces = self._added_pattern.split(piece)
        segments += [self._added.get(token, token) for token in pieces if token]
    if sorted(found) != list(range(len(texts))):
      raise ValueError("the chat template leaves out or repeats a part of the messages")
    return segments

  def _encode(self, segments: Sequence[str | int]) -> Int32[np.ndarray, " T"]:
    """Tokenizes segments; text that stands together is tokenized together, as HF does."""
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
  def _added(self) -> dict[str, int]:
    return self.tokenizer.get_added_vocab()

  @functools.cached_property
  def _added_pattern(self) -> re.Pattern:
    longest_first = sorted(self._added, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

  @functools.cached_property
  def _plain(self) -> tokenizers.Tokenizer:
    """The tokenizer without its added tokens."""
    full = self.tokenizer.backend_tokenizer
    plain = tokenizers.Tokenizer(full.model)
    if full.normalizer is not None:
      plain.normalizer = full.normalizer
    plain.pre_tokenizer = full.pre_tokenizer
    return plain


def _take_out_texts(
  messages: Sequence[Message],
) -> tuple[list[dict[str, Any]], list[str | None]]:
  """Returns the messages with a slot for each text, and the texts in order; None: the candidate."""
  texts, slotted = [], []

  def slot(text: str | None) -> str:
    texts.append(text)
    return f"\0{len(texts) - 1}\0"

  def part_with_slot(part: Mapping[str, str]) -> dict[str, str]:
    match part:
      case {"type": "text", "text": str(text)}:
        return {"type": "text", "text": slot(text)}
      case {"type": "candidate"}:
        return {"type": "text", "text": slot(None)}
      case {"type": "image"}:
        return {"type": "image"}
    raise ValueError(f"a message part is {quoted(part)}; its type must be text, image or candidate")

  for message in messages:
    content = message["content"]
    content = slot(content) if isinstance(content, str) else [part_with_slot(p) for p in content]
    slotted.append({"role": message["role"], "content": content})
  return slotted, texts


def _image_processor(
  directory: pathlib.Path, min_pixels: int | None, max_pixels: int | None
) -> transformers.Qwen2VLImageProcessorPil:
  """Builds the image processor; a given limit goes before the directory's."""
  kind = transformers.Qwen2VLImageProcessorPil
  try:
    settings, _ = kind.get_image_processor_dict(directory, local_files_only=True)
  except OSError as error:
    raise ValueError(f"{directory} has no preprocessor_config.json") from error
  # Published files state the limits as `size`, as `min_pixels` and `max_pixels`, or as both. At
  # construction `size` alone is obeyed by every version of transformers.
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
  directory: pathlib.Path, tokenizer: transformers.PreTrainedTokenizerFast
) -> tuple[int, ...]:
  """Returns the tokens that end a response, from where HF `generate` takes them."""
  path = directory / "generation_config.json"
  found = parse_json(path.read_bytes(), path).get("eos_token_id") if path.exists() else None
  found = tokenizer.eos_token_id if found is None else found
  if found is None:
    raise ValueError(f"{directory} names no token that ends a response; set eos_token")
  return (found,) if isinstance(found, int) else tuple(found)
