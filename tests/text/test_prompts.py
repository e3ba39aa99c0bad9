"""Prompts: what must be in them, and that the forms they ask for are the forms that are read."""

import re

import pytest

from sejax.text import answers, prompts, verdicts


def test_prompts_hold_real_backslashes():
  for text in (prompts.ACTOR_INSTRUCTION, prompts.judge_system()):
    assert "\\boxed{" in text
    assert "\b" not in text


def test_the_actor_is_asked_for_the_form_that_is_checked():
  query = prompts.actor_query("What is x?")
  assert query.startswith("What is x?\n\n")
  for part in ("<think>", "</think>", "\\boxed{}"):
    assert part in query
  assert answers.format_ok("<think>2 + 3</think>\\boxed{5}")


def test_the_judge_is_asked_for_the_form_that_is_read():
  system = prompts.judge_system()
  form = system[system.index("[BEGIN THOUGHT]") : system.index("Put your own score")]
  filled = form.replace("<number>", "0.4")
  assert verdicts.score(filled.replace("\\boxed{overall_score}", "")) == 0.4
  assert verdicts.score(filled.replace("\\boxed{overall_score}", "\\boxed{0.6}")) == 0.6


@pytest.mark.parametrize("rubric", prompts.RUBRICS)
def test_an_echo_of_the_judges_prompt_is_no_verdict(rubric):
  system = prompts.judge_system(form=rubric)
  lines = system.splitlines()
  for start in range(len(lines)):
    for end in range(start, len(lines)):
      echo = "\n".join(lines[start : end + 1])
      assert verdicts.score(echo) is None, echo
      for released in (f"{echo}\n[END SCORES]", f"[SCORES]{echo}"):
        assert verdicts.score(released) is None, released


def test_the_rubric_stands_in_the_system_prompt():
  released = prompts.judge_system()
  for name, weight in (
    ("answer_correctness", 0.5),
    ("reasoning_quality", 0.3),
    ("visual_grounding", 0.2),
  ):
    assert f"- {name} (weight {weight})" in released
    assert f'"{name}": <number>' in released
  own = prompts.judge_system(prompts.Rubric(0.25, 0.25, 0.5))
  assert "0.25 * answer_correctness + 0.25 * reasoning_quality + 0.5 * visual_grounding" in own
  with pytest.raises(ValueError, match="must be at least 0 and sum to 1"):
    prompts.Rubric(0.5, 0.5, 0.5)


def test_the_judges_query_is_its_shared_prefix_and_the_candidates_suffix():
  candidate = "<think>{braces} %s</think>\\boxed{5}"
  query = prompts.judge_query("What is x?", candidate)
  prefix = prompts.judge_prefix("What is x?")
  assert query == prefix + prompts.judge_suffix(candidate)
  assert candidate in query
  assert "What is x?" in prefix
  assert prompts.ACTOR_INSTRUCTION not in query
  instructed = prompts.judge_query("What is x?", candidate, include_instruction=True)
  assert prompts.ACTOR_INSTRUCTION in instructed
  assert len(re.findall(re.escape(candidate), instructed)) == 1
