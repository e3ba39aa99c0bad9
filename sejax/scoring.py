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


class Verdicts(NamedTuple):
  """What was read from the verdicts on B groups of G trajectories.

  Attributes:
    scores: the mean of a trajectory's valid verdicts, in [0, 1]; 0 where there is none.
    valid: whether there is one.
    truncated: how many were cut at the limit of tokens.
    contradictory: how many have a box that is not the score of their own JSON object.
  """

  scores: Float32[np.ndarray, "B G"]
  valid: Bool[np.ndarray, "B G"]
  truncated: Int32[np.ndarray, "B G"]
  contradictory: Int32[np.ndarray, "B G"]

  def counts(self) -> dict[str, Int32[np.ndarray, " B"]]:
    """Returns how many verdicts on each group are truncated, and contradictory."""
    return {
      "truncated_verdicts": self.truncated.sum(axis=1),
      "contradictory_verdicts": self.contradictory.sum(axis=1),
    }


class Scored(NamedTuple):
  """What was read from the texts of B groups of G trajectories, and what the method made of it.

  Attributes:
    answers: as read; None where nothing could be.
    answer_ids: equal numbers for equal answers of a group, `ABSTAIN` for none.
    format_ok: whether the output format was kept.
    verdicts: what the Judge said; None without a Judge.
    group: rewards and advantages.
  """

  answers: list[list[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  verdicts: Verdicts | None
  group: method.Group


def score_groups(
  responses: Sequence[Sequence[str]],
  verdict_texts: Sequence[Sequence[Sequence[str]]],
  config: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Scored:
  """Reads answers and verdicts and computes rewards and advantages (arXiv:2603.21289).

  Args:
    responses: B groups of G trajectories.
    verdict_texts: for each trajectory what the Judge wrote, once per repeat; not looked at where
      `config.judge.use` is false.
    config: the run's configuration; `answers`, `judge` and `method` are used.
    truncated: whether each verdict was cut at the limit; None: none was.

  Returns:
    What was read, and the rewards and advantages.

  Raises:
    ValueError: groups differ in size, or an option is unknown or out of its range.
  """
  extracted, answer_ids = read_answers(responses, config)
  format_ok = np.array([[answers.format_ok(text) for text in group] for group in responses], bool)
  read, judged = None, (None, None)
  if config.judge.use:
    read = read_verdicts(verdict_texts, config.judge, truncated)
    judged = (read.scores, read.valid)
  group = method.group(answer_ids, format_ok, *judged, **config.method)
  return Scored(extracted, answer_ids, format_ok, read, group)


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
  texts: Sequence[Sequence[Sequence[str]]],
  options: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Verdicts:
  """Reads the verdicts on B groups of G trajectories, several on each.

  One that was cut at the limit of tokens is not the Judge's last word, and so not valid, whatever
  can be read from it; nor, with `contradictory="invalid"`, is one whose box is not the score of its
  own JSON object. As the released code reads (`released_reading`), both are taken as they are.

  Args:
    texts: for each trajectory what the Judge wrote, once per repeat.
    options: `config.judge`.
    truncated: whether each was cut; None: none was.
  """
  shape = (len(texts), len(texts[0]) if texts else 0)
  read = Verdicts(
    np.zeros(shape, np.float32),
    np.zeros(shape, bool),
    np.zeros(shape, np.int32),
    np.zeros(shape, np.int32),
  )
  for b, g in np.ndindex(shape):
    repeats = texts[b][g]
    cut = [False] * len(repeats) if truncated is None else truncated[b][g]
    contradictory = [verdicts.contradicts(text) for text in repeats]
    scores = [verdicts.score(text, released=options.released_reading) for text in repeats]
    if not options.released_reading:
      refused = contradictory if options.contradictory == "invalid" else [False] * len(repeats)
      scores = [
        None if was_cut or is_refused else score
        for score, was_cut, is_refused in zip(scores, cut, refused, strict=True)
      ]
    usable = [score for score in scores if score is not None]
    read.valid[b, g] = bool(usable)
    read.scores[b, g] = sum(usable) / len(usable) if usable else 0.0
    read.truncated[b, g], read.contradictory[b, g] = sum(cut), sum(contradictory)
  return read


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores the recorded groups of `config.groups`, writes them to the workdir and prints metrics.

  The file holds one group per line: `{"id", "responses": [G texts], "verdicts": [G texts, or G
  lists of texts], "truncated_verdicts": optional, "gold": optional}`. `truncated_verdicts` says of
  each verdict, in the form of `verdicts`, whether it was cut at the limit (true or false). Without
  a Judge (`config.judge.use`) there need be no verdicts, and those that there are do not count.
  Writes `rewards.jsonl` (a group per line) and `metrics.json`.

  Raises:
    ValueError: naming the line that is not of this form.
  """
  repeats = config.judge.num_judge_repeats if config.judge.use else 0
  records = read_groups(config.groups, config.group_size, repeats)
  responses = [record["responses"] for record in records]
  given = [record.get("verdicts") for record in records]
  truncated = [record["truncated_verdicts"] for record in records]
  scored = score_groups(responses, given, config, truncated)
  correct = None
  if "gold" in records[0]:
    with Prover() as prover:
      correct = prover.grade(scored.answers, [record["gold"] for record in records])
  read = scored.verdicts
  judged = (None, None) if read is None else (read.scores, read.valid)
  measures = method.group_metrics(scored.answer_ids, *judged, correct, tie=config.method.tie)
  for name, counts in ({} if read is None else read.counts()).items():
    measures[name] = method.Measure(counts.astype(np.float32), np.ones(len(counts), bool))
  metrics = {name: float(value) for name, value in method.summarize(measures).items()}
  _write(scored, records, metrics, workdir)
  width = max(map(len, metrics))
  for name, value in metrics.items():
    if not name.endswith("_count"):
      print(f"{name:>{width}} {value:8.4f}")
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
  verdict_texts, cut = [], []
  if num_judge_repeats:
    verdict_texts = [[v] if isinstance(v, str) else v for v in record["verdicts"]]
    cut = record.get("truncated_verdicts", [[False] * num_judge_repeats] * group_size)
    cut = [[c] if isinstance(c, bool) else c for c in cut] if isinstance(cut, list) else cut
  for texts in [record["responses"], *verdict_texts]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise ValueError(f"{shortened(json.dumps(texts))} is no text")
  for texts in verdict_texts:
    if len(texts) != num_judge_repeats:
      raise ValueError(
        f"a trajectory has {len(texts)} verdicts; config.judge.num_judge_repeats is"
        f" {num_judge_repeats}"
      )
  if num_judge_repeats and not _are_flags(cut, group_size, num_judge_repeats):
    raise ValueError(
      f"truncated_verdicts={shortened(json.dumps(record['truncated_verdicts']))} is not true or"
      " false for each of its verdicts"
    )
  return record | {"verdicts": verdict_texts, "truncated_verdicts": cut}


def _are_flags(values: object, group_size: int, repeats: int) -> bool:
  return (
    isinstance(values, list)
    and len(values) == group_size
    and all(isinstance(row, list) and len(row) == repeats for row in values)
    and all(isinstance(value, bool) for row in values for value in row)
  )


def _write(
  scored: Scored, records: list[dict], metrics: dict[str, float], workdir: pathlib.Path
) -> None:
  arrays = {name: np.asarray(value) for name, value in scored.group._asdict().items()}
  arrays |= {"answer_ids": scored.answer_ids, "format_ok": scored.format_ok}
  if scored.verdicts is not None:
    arrays |= {"judge_scores": scored.verdicts.scores, "judge_valid": scored.verdicts.valid}
  with (workdir / "rewards.jsonl").open("w", encoding="utf-8") as file:
    for b, record in enumerate(records):
      row = {"id": record.get("id", b), "answers": scored.answers[b]}
      row |= {name: value[b].tolist() for name, value in arrays.items()}
      file.write(json.dumps(row) + "\n")
  (workdir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
