"""Computes the method's rewards for recorded responses, without a model: `--mode=rewards`."""

import json

import numpy as np

from sejax import method, storage
from sejax.errors import quoted, shortened
from sejax.rewards.reading import Scored, Scoring, score_groups
from sejax.text.equivalence import Prover


def run(path: str, workdir: storage.Path, scoring: Scoring, *, group_size: int) -> None:
  """Computes rewards and metrics of recorded groups; writes them to the workdir.

  The file has JSON lines with one group per line:

      {"id": optional,
       "responses": [G texts],
       "verdicts": [G texts, or G lists of texts],
       "truncated_verdicts": optional, true or false for each verdict, nested like `verdicts`,
       "gold": optional text, in all lines or none}

  Without a Judge, verdicts may be missing and are ignored. Advantages of `gdpo` are those before it
  whitens them, for which the lengths in tokens are not known. Writes `rewards.jsonl` (one group per
  line) and `metrics.json`, and prints the metrics.

  Args:
    path: of the file; `config.rewards.recorded`.
    workdir: where the results are written.
    scoring: how texts become rewards.
    group_size: required number of responses per group, G.

  Raises:
    ValueError: a line has another form.
  """
  records = read_groups(path, group_size, scoring.repeats)
  responses = [record["responses"] for record in records]
  verdict_texts = [record.get("verdicts") for record in records]
  truncated = [record["truncated_verdicts"] for record in records]
  scored = score_groups(responses, verdict_texts, scoring, truncated)
  correct = None
  if "gold" in records[0]:
    with Prover() as prover:
      correct = prover.grade(scored.answers, [record["gold"] for record in records])
  verdicts = scored.verdicts
  measures = method.group_metrics(
    scored.answer_ids,
    None if verdicts is None else verdicts.scores,
    None if verdicts is None else verdicts.valid,
    correct,
    tie=scoring.method["tie"],
  )
  if verdicts is not None:
    for name, counts in verdicts.counts().items():
      measures[name] = method.Measure(counts.astype(np.float32), np.ones(len(counts), bool))
  metrics = {name: float(value) for name, value in method.summarize(measures).items()}
  _write(scored, records, metrics, workdir)
  width = max(map(len, metrics))
  for name, value in metrics.items():
    if not name.endswith("_count"):
      print(f"{name:>{width}} {value:8.4f}")
  print(f"written to {workdir / 'rewards.jsonl'}")


def read_groups(path: str, group_size: int, num_judge_repeats: int) -> list[dict]:
  """Reads recorded groups in the format that `run` describes.

  Args:
    path: a JSON lines file.
    group_size: required number of responses per group, G.
    num_judge_repeats: required number of verdicts per response; 0 ignores verdicts.

  Raises:
    ValueError: the file has no groups, a line has another form, or only some groups have a gold
      answer.
  """
  if not path or not storage.Path(path).is_file():
    raise ValueError(
      f"config.rewards.recorded={quoted(path)} is not a file; give a file of JSON lines"
    )
  records = []
  # Not splitlines(), which also splits at other separators that a JSON text may contain.
  for number, line in enumerate(storage.Path(path).read_text(encoding="utf-8").split("\n"), 1):
    if not line.strip():
      continue
    try:
      records.append(_group(json.loads(line), group_size, num_judge_repeats))
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{path}:{number} is not a group: {error}") from None
  if not records:
    raise ValueError(f"{path} holds no group")
  golds = sum("gold" in record for record in records)
  if golds not in (0, len(records)):
    raise ValueError(f"{path} has a gold answer for {golds} of {len(records)} groups; all or none")
  return records


def _group(record: object, group_size: int, num_judge_repeats: int) -> dict:
  """Validates a group, and nests its verdicts and truncation flags as one list per response."""
  fields = ("responses", "verdicts") if num_judge_repeats else ("responses",)
  if not isinstance(record, dict) or not record.keys() >= {*fields}:
    raise ValueError(f"it needs an object with {' and '.join(fields)}")
  if not isinstance(record.get("gold", ""), str):
    raise ValueError(f"gold={quoted(record['gold'])} is not a string")
  for field in fields:
    if not isinstance(record[field], list) or len(record[field]) != group_size:
      raise ValueError(f"{field} is not a list of config.group_size={group_size} entries")
  verdict_texts, truncated = [], []
  if num_judge_repeats:
    verdict_texts = [[v] if isinstance(v, str) else v for v in record["verdicts"]]
    truncated = record.get("truncated_verdicts", [[False] * num_judge_repeats] * group_size)
    if isinstance(truncated, list):
      truncated = [[flag] if isinstance(flag, bool) else flag for flag in truncated]
  for texts in [record["responses"], *verdict_texts]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise ValueError(f"{shortened(json.dumps(texts))} is not text")
  for texts in verdict_texts:
    if len(texts) != num_judge_repeats:
      raise ValueError(
        f"a trajectory has {len(texts)} verdicts; config.judge.num_judge_repeats is"
        f" {num_judge_repeats}"
      )
  if num_judge_repeats and not _are_flags(truncated, group_size, num_judge_repeats):
    raise ValueError(
      f"truncated_verdicts={shortened(json.dumps(record['truncated_verdicts']))} is not true or"
      " false for each of its verdicts"
    )
  return record | {"verdicts": verdict_texts, "truncated_verdicts": truncated}


def _are_flags(values: object, group_size: int, repeats: int) -> bool:
  """Whether a value is a list of `group_size` lists of `repeats` booleans."""
  return (
    isinstance(values, list)
    and len(values) == group_size
    and all(isinstance(row, list) and len(row) == repeats for row in values)
    and all(isinstance(value, bool) for row in values for value in row)
  )


def _write(
  scored: Scored, records: list[dict], metrics: dict[str, float], workdir: storage.Path
) -> None:
  arrays = {name: np.asarray(value) for name, value in scored.group._asdict().items()}
  arrays |= {"answer_ids": scored.answer_ids, "format_ok": scored.format_ok}
  if scored.verdicts is not None:
    arrays |= {"judge_scores": scored.verdicts.scores, "judge_valid": scored.verdicts.valid}
  lines = []
  for b, record in enumerate(records):
    row = {"id": record.get("id", b), "answers": scored.answers[b]}
    row |= {name: value[b].tolist() for name, value in arrays.items()}
    lines.append(json.dumps(row) + "\n")
  storage.write_text(workdir / "rewards.jsonl", "".join(lines))
  storage.write_text(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
