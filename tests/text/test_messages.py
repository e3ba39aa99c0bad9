"""What Actor and Judge are sent, as the processor gets it."""

import pytest

from sejax.text import messages, prompts


def test_actor_sees_images_where_the_question_says_so():
  (turn,) = messages.actor_messages("Left <image>, right <image>: which is larger?", 2, "")
  kinds = [part["type"] for part in turn["content"]]
  assert (turn["role"], kinds) == ("user", ["text", "image", "text", "image", "text"])


def test_actor_sees_images_first_and_then_question_and_instruction():
  (turn,) = messages.actor_messages("How many?", 1)
  assert turn["content"] == [
    {"type": "image"},
    {"type": "text", "text": f"How many?\n\n{prompts.ACTOR_INSTRUCTION}"},
  ]


def test_actor_refuses_another_number_of_images():
  with pytest.raises(ValueError, match="says <image> 2 times for 1 images"):
    messages.actor_messages("<image> <image>", 1)


@pytest.mark.parametrize("include_instruction", [False, True])
def test_judge_sees_images_first_and_the_candidate_apart(include_instruction):
  system, user = messages.judge_messages(
    "<image>How many?", 1, "Grade.", include_instruction=include_instruction, instruction="Box it."
  )
  assert system == {"role": "system", "content": "Grade."}
  kinds = [part["type"] for part in user["content"]]
  assert kinds == ["image", "text", "candidate", "text"]
  # With the candidate in its place, the text is the whole query.
  text = user["content"][1]["text"] + "a reply" + user["content"][3]["text"]
  assert text == prompts.judge_query(
    "How many?", "a reply", include_instruction=include_instruction, instruction="Box it."
  )
