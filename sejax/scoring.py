"""From the texts of a batch to its rewards (arXiv:2603.21289): the host side.

Strings end here: texts become vote ids, format flags and scores, `[B, G]` arrays for the jitted
kernel. `run` does it for recorded groups in a file, without a model.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Bool, Float32, Int32

from sejax import method
from sejax.quoting import quoted, shortened
from sejax.text import answers, verdicts
from sejax.text.equivalence import Prover


class Scored(NamedTuple):
  """What was read from the texts of B groups of G trajectories, and what the method made of it.

  Attributes:
    answers: as read; None where nothing could be.
    answer_ids: equal numbers for equal answers of a group, `ABSTAIN` for none.
    format_ok: whether the output format was kept.
    judge_scores: the mean of valid verdicts, in [0, 1]; 0 where there is none. None without a
      Judge.
    judge_valid: whether there is one; None without a Judge.
    group: rewards and advantages.
  """

  answers: list[list[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  judge_scores: Float32[np.ndarray, "B G"] | None
  judge_valid: Bool[np.ndarray, "B G"] | None
  group: method.Group


def score_groups(
  responses: Sequence[Sequence[str]],
  verdict_texts: Sequence[Sequence[Sequence[str]]],
  config: ml_collections.ConfigDict,
) -> Scored:
  """Reads answers and verdicts and computes rewards and advantages (arXiv:2603.21289).

  Args:
    responses: B groups of G trajectories.
    verdict_texts: for each trajectory what the Judge wrote, once per repeat; not looked at where
      `config.judge.use` is false.
    config: the run's configuration; `answers`, `judge` and `method` are used.

  Returns:
    What was read, and the rewards and advantages.

  Raises:
    ValueError: groups differ in size, or an option is unknown or out of its range.
  """
  extracted, answer_ids = read_answers(responses, config)
  format_ok = np.array([[answers.format_ok(text) for text in group] for group in responses], bool)
  scores = valid = None
  if config.judge.use:
    scores, valid = read_verdicts(verdict_texts, released=config.judge.released_reading)
  group = method.group(answer_ids, format_ok, scores, valid, **config.method)
  return Scored(extracted, answer_ids, format_ok, scores, valid, group)


def read_answers(
  responses: Sequence[Sequence[str]], config: ml_collections.ConfigDict
) -> tuple[list[list[str | None]], Int32[np.ndarray, "B G"]]:
  """Returns the answer of every trajectory and, per group, equal answers by equal numbers.

  Raises:
    ValueError: groups differ in size, or an option of `config.answers` is unknown.
  """
  read = config.answers
  extracted = [
    [answers.extract(text, released=read.released_extraction) for text in group]
    for group in responses
  ]
  ids = answers.vote_ids(extracted, equivalence=read.equivalence, unparsable=read.unparsable)
  return extracted, ids


def read_verdicts(
  texts: Sequence[Sequence[Sequence[str]]], released: bool = False
) -> tuple[Float32[np.ndarray, "B G"], Bool[np.ndarray, "B G"]]:
  """Returns the mean of the valid scores of every trajectory, and whether there is one."""
  scores = np.zeros((len(texts), len(texts[0]) if texts else 0), np.float32)
  valid = np.zeros(scores.shape, bool)
  for b, group in enumerate(texts):
    for g, repeats in enumerate(group):
      read = [verdicts.score(text, released=released) for text in repeats]
      usable = [score for score in read if score is not None]
      valid[b, g] = bool(usable)
      scores[b, g] = sum(usable) / len(usable) if usable else 0.0
  return scores, valid


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores the recorded groups of `config.groups`, writes them to the workdir and prints metrics.

  The file holds one group per line: `{"id", "responses": [G texts], "verdicts": [G texts, or G
  lists of texts], "gold": optional}`; without a Judge (`config.judge.use`) there need be no
  verdicts, and those that there are do not count. Writes `rewards.jsonl` (a group per line) and
  `metrics.json`.

  Raises:
    ValueError: naming the line that is not of this form.
  """
  repeats = config.judge.num_judge_repeats if config.judge.use else 0
  records = read_groups(config.groups, config.group_size, repeats)
  responses = [record["responses"] for record in records]
  scored = score_groups(responses, [record.get("verdicts") for record in records], config)
  correct = None
  if "gold" in records[0]:
    with Prover() as prover:
      correct = prover.grade(scored.answers, [record["gold"] for record in records])
  measures = method.group_metrics(
    scored.answer_ids, scored.judge_scores, scored.judge_valid, correct, tie=config.method.tie
  )
  metrics = {name: float(value) for name, value in method.summarize(measures).items()}
  _write(scored, records, metrics, workdir)
  for name, value in metrics.items():
    if not name.endswith("_count"):
      print(f"{name:>18} {value:8.4f}")
  print(f"written to {workdir / 'rewards.jsonl'}")


def read_groups(path: str, group_size: int, num_judge_repeats: int) -> list[dict]:
  """Reads recorded groups, in the form that `run` describes.

  Args:
    path: a file of JSON lines.
    group_size: responses that a group must have, G.
    num_judge_repeats: verdicts that each response must have; 0: none are looked at.

  Raises:
    ValueError: there is no group in it; a line, which is named, is no such group; or only some of
      the groups have a gold answer.
  """
  if not path or not pathlib.Path(path).is_file():
    raise ValueError(f"config.groups={quoted(path)} is no file; give a file of JSON lines")
  records = []
  # Lines end at line feeds alone: a text may hold the other separators that splitlines() knows.
  for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").split("\n"), 1):
    if not line.strip():
      continue
    try:
      records.append(_group(json.loads(line), group_size, num_judge_repeats))
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{path}:{number} is no group: {error}") from None
  if not records:
    raise ValueError(f"{path} holds no group")
  golds = sum("gold" in record for record in records)
  if golds not in (0, len(records)):
    raise ValueError(f"{path} has a gold answer for {golds} of {len(records)} groups; all or none")
  return records


def _group(record: object, group_size: int, num_judge_repeats: int) -> dict:
  """Checks one record and gives its verdicts, if any count, as lists, one text per repeat."""
  fields = ("responses", "verdicts") if num_judge_repeats else ("responses",)
  if not isinstance(record, dict) or not record.keys() >= {*fields}:
    raise ValueError(f"it needs an object with {' and '.join(fields)}")
  if not isinstance(record.get("gold", ""), str):
    raise ValueError(f"gold={quoted(record['gold'])} is no string")
  for field in fields:
    if not isinstance(record[field], list) or len(record[field]) != group_size:
      raise ValueError(f"{field} is no list of config.group_size={group_size} entries")
  verdict_texts = []
  if num_judge_repeats:
    verdict_texts = [[v] if isinstance(v, str) else v for v in record["verdicts"]]
  for texts in [record["responses"], *verdict_texts]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise ValueError(f"{shortened(json.dumps(texts))} is no text")
  for texts in verdict_texts:
    if len(texts) != num_judge_repeats:
      raise ValueError(
        f"a trajectory has {len(texts)} verdicts; config.judge.num_judge_repeats is"
        f" {num_judge_repeats}"
      )
  return record | {"verdicts": verdict_texts}


def _write(
  scored: Scored, records: list[dict], metrics: dict[str, float], workdir: pathlib.Path
) -> None:
  arrays = {name: np.asarray(value) for name, value in scored.group._asdict().items()}
  arrays |= {"answer_ids": scored.answer_ids, "format_ok": scored.format_ok}
  if scored.judge_scores is not None:
    arrays |= {"judge_scores": scored.judge_scores, "judge_valid": scored.judge_valid}
  with (workdir / "rewards.jsonl").open("w", encoding="utf-8") as file:
    for b, record in enumerate(records):
      row = {"id": record.get("id", b), "answers": scored.answers[b]}
      row |= {name: value[b].tolist() for name, value in arrays.items()}
      file.write(json.dumps(row) + "\n")
  (workdir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
