"""Extraction, format and vote ids; the golden rows are exact outputs of the released code."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sejax.text import answers
from tests import golden

EXTRACTION = golden.load("reference_edge_cases.json")["extraction"]
GROUPS = [g for name in golden.FILES for g in golden.load(name)["groups"]]


@pytest.mark.parametrize("row", EXTRACTION, ids=lambda row: row["kind"])
def test_released_extraction(row):
  assert answers.extract(row["response"], released=True) == row["answer"]
  assert answers.format_ok(row["response"]) == (row["format_penalty"] == 0)


def test_released_chain_from_texts_to_votes():
  for group in GROUPS:
    extracted = [answers.extract(text, released=True) for text in group["responses"]]
    assert extracted == group["answers"]
    penalties = [0.0 if answers.format_ok(text) else -0.5 for text in group["responses"]]
    assert penalties == group["format_penalty"]
    ids = answers.vote_ids([extracted], equivalence="exact", unparsable="vote")[0]
    first = {}
    assert ids.tolist() == [first.setdefault(a, len(first)) for a in group["answers"]]


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    (r"so \boxed{840} and again \boxed{840}", "840"),
    (r"\boxed{004} or \boxed{004}", "004"),
    (r"<think>t</think>\boxed{\frac{7}{9}}", r"\frac{7}{9}"),
    (r"\boxed{\text{E}}", r"\text{E}"),
    (r"\boxed{E: foo}", "E: foo"),
    (r"\boxed{33} then \boxed{34", "33"),
    (r"\boxed{37} then \boxed{\frac{3}{8}", "37"),
    (r"\boxed{\left\{ y \right.}", r"\left\{ y \right."),
    (r"\boxed{k\}m}", r"k\}m"),
    (r"\boxed{p\\}q}", "p\\\\"),
    (r"\boxed {41}", "41"),
    (r"\boxed{4} hmm, \boxed {5}", "5"),
    (r"\boxed{4} hmm, \boxed 5", "4"),
    (r"\boxed{\boxed{54}}", "54"),
    (r"\boxed{" + "{" * 40 + "7" + "}" * 41, "{" * 40 + "7" + "}" * 40),
    (r"\boxed{  17 }", "17"),
    (r"\boxed{unclosed", None),
    (r"\boxed{}", None),
    (r"\boxed{ }", None),
    ("seven", None),
    ("", None),
  ],
)
def test_extraction(text, answer):
  assert answers.extract(text) == answer


def test_unreadable_answers_abstain_or_vote():
  group = [None, "", "None", "none", "5", "5.0"]
  assert answers.vote_ids([group])[0].tolist() == [-1, -1, -1, -1, 0, 0]
  assert answers.vote_ids([group], unparsable="vote")[0].tolist() == [0, 0, 0, 0, 1, 1]
  exact = answers.vote_ids([group], equivalence="exact")[0]
  assert exact.tolist() == [-1, -1, -1, -1, 0, 1]
  released = answers.vote_ids([group], equivalence="exact", unparsable="vote")[0]
  assert released.tolist() == [0, 1, 0, 2, 3, 4]


def test_votes_of_several_groups():
  ids = answers.vote_ids([["1/2", "0.5", "2"], ["B", "(A)", "b"]])
  assert ids.dtype == np.int32
  assert ids.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_bad_options_are_named():
  with pytest.raises(ValueError, match=r"equivalence='fuzzy' is not one of canonical, exact"):
    answers.vote_ids([["1"]], equivalence="fuzzy")
  with pytest.raises(ValueError, match=r"unparsable='drop' is not one of abstain, vote"):
    answers.vote_ids([["1"]], unparsable="drop")
  with pytest.raises(ValueError, match=r"groups differ in size: \[1, 2\]"):
    answers.vote_ids([["1"], ["1", "2"]])


@pytest.mark.parametrize(
  "text",
  [
    r"\boxed{" * 100_000,
    r"\boxed{" * 100_000 + "}",
    r"\boxed{" + "{" * 100_000,
    r"\boxed{" + "{}" * 50_000,
    r"\boxed{" + "{" * 50_000 + "1" + "}" * 50_001,
    r"\boxed" + " " * 100_000,
    r"\boxed{" + r"\{" * 50_000 + "}",
    "<think>" * 20_000,
    "<think>" + "</think>" * 20_000 + r"\boxed{" * 20_000,
    "\\" * 100_000,
    "\ud800" * 1000 + r"\boxed{\ud800}",
  ],
  ids=range(11),
)
def test_hostile_trajectories_end_quickly(text):
  start = time.perf_counter()
  for released in (False, True):
    answer = answers.extract(text, released=released)
    answers.vote_ids([[answer, answer]])
  answers.format_ok(text)
  # Far above what any of them takes; it only tells linear time from a hang.
  assert time.perf_counter() - start < 2.0


@pytest.mark.long
@given(
  st.lists(
    st.sampled_from(["\\boxed{", "\\boxed {", "{", "}", "\\{", "\\}", "\\", "a", " "]), max_size=40
  )
)
@settings(max_examples=500, deadline=None)
def test_extraction_equals_a_plain_scan(pieces):
  text = "".join(pieces)
  assert answers.extract(text) == _scan(text)


def _scan(text):
  """Quadratic and obvious: the last opener whose braces balance, escapes skipped."""
  for start in reversed(range(len(text))):
    if not text.startswith("\\boxed", start):
      continue
    rest = text[start + len("\\boxed") :]
    stripped = rest.lstrip()
    if not stripped.startswith("{"):
      continue
    depth, i = 0, 0
    while i < len(stripped):
      if stripped[i] == "\\" and stripped[i + 1 : i + 2] in ("\\", "{", "}"):
        i += 2
        continue
      depth += {"{": 1, "}": -1}.get(stripped[i], 0)
      if depth == 0:
        return stripped[1:i].strip() or None
      i += 1
  return None
