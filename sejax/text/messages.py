"""What Actor and Judge are sent: chat messages with images, for `Processor.prompt`.

Messages have the usual form: a list of `{"role": ..., "content": ...}`, the content a string or a
list of parts, `{"type": "text", "text": ...}`, `{"type": "image"}` and `{"type": "candidate"}`.
The last stands for a text that is known only later (see `Processor.prompt`).
"""

from collections.abc import Mapping
from typing import Any

from sejax.text import prompts

Message = Mapping[str, Any]


def actor_messages(
  question: str, num_images: int, instruction: str = prompts.ACTOR_INSTRUCTION
) -> list[Message]:
  """Returns the Actor's turn (method section 1).

  Args:
    question: `<image>` stands once for each image, or nowhere: images then come first.
    num_images: images that belong to the question.
    instruction: what follows the question; may be empty.

  Raises:
    ValueError: `<image>` stands another number of times.
  """
  query = prompts.actor_query(question, instruction)
  return [{"role": "user", "content": question_parts(query, num_images)}]


def judge_messages(
  question: str,
  num_images: int,
  system: str,
  *,
  include_instruction: bool = False,
  instruction: str = prompts.ACTOR_INSTRUCTION,
) -> list[Message]:
  """Returns the Judge's turn up to its reply, with a `candidate` part (method section 4).

  The images come first, wherever the question says `<image>`.

  Args:
    question: the problem.
    num_images: images that belong to it.
    system: the Judge's system prompt, from `prompts.judge_system`.
    include_instruction: whether the question carries the Actor's format instruction, as released.
    instruction: that instruction.
  """
  prefix = prompts.judge_prefix(
    question.replace("<image>", ""),
    include_instruction=include_instruction,
    instruction=instruction,
  )
  content = [{"type": "image"}] * num_images
  content += [{"type": "text", "text": prefix}, {"type": "candidate"}]
  content += [{"type": "text", "text": prompts.judge_suffix("")}]
  return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def question_parts(question: str, num_images: int) -> list[dict[str, str]]:
  """Returns a question's content parts: images where it says `<image>`, first if it does not.

  Args:
    question: the text, `<image>` standing once for each image or not at all.
    num_images: images that belong to the question.

  Raises:
    ValueError: `<image>` stands another number of times.
  """
  texts = question.split("<image>")
  if len(texts) == 1:
    texts = [""] * num_images + texts
  if len(texts) - 1 != num_images:
    raise ValueError(f"the question says <image> {len(texts) - 1} times for {num_images} images")
  parts = []
  for place, text in enumerate(texts):
    parts += [{"type": "image"}] if place else []
    parts += [{"type": "text", "text": text}] if text else []
  return parts
