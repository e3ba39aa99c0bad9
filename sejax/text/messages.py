"""Builds the chat messages for the Actor and the Judge, which `Processor.prompt` tokenizes.

Messages have the usual form: a list of `{"role": ..., "content": ...}`, the content a string or a
list of parts, `{"type": "text", "text": ...}`, `{"type": "image"}` and `{"type": "candidate"}`.
The last is a placeholder for the trajectory to judge, which is known only later (see
`Processor.prompt`).
"""

from collections.abc import Mapping
from typing import Any

from sejax.text import prompts

Message = Mapping[str, Any]


def actor_messages(
  question: str, num_images: int, instruction: str = prompts.ACTOR_INSTRUCTION
) -> list[Message]:
  """Returns the messages that ask the Actor a question.

  Args:
    question: contains `<image>` once for each image, or not at all; images then come first.
    num_images: number of images of the question.
    instruction: text after the question; may be empty.

  Raises:
    ValueError: the question contains `<image>` another number of times.
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
  """Returns the messages that ask the Judge to grade a candidate solution.

  A `candidate` part takes the place of the solution. The images come first, wherever the question
  contains `<image>`.

  Args:
    question: text of the problem.
    num_images: number of images of the question.
    system: the Judge's system prompt, from `prompts.judge_system`.
    include_instruction: whether the question includes the Actor's format instruction, as in the
      paper's released code.
    instruction: the Actor's format instruction.
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
  """Splits a question into text and image parts; images come first if it has no `<image>`.

  Args:
    question: contains `<image>` once for each image, or not at all.
    num_images: number of images of the question.

  Raises:
    ValueError: the question contains `<image>` another number of times.
  """
  texts = question.split("<image>")
  if len(texts) == 1:
    texts = [""] * num_images + texts
  if len(texts) - 1 != num_images:
    raise ValueError(
      f"the question says <image> {len(texts) - 1} times for {num_images} images; write it once for"
      " each image, or not at all"
    )
  parts = []
  for index, text in enumerate(texts):
    if index > 0:
      parts.append({"type": "image"})
    if text:
      parts.append({"type": "text", "text": text})
  return parts
