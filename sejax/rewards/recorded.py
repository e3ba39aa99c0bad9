"""`--mode=rewards`: the method's rewards for recorded groups in a file, without a model."""

import json
import pathlib

import ml_collections
import numpy as np

from sejax import method
from sejax.errors import quoted, shortened
from sejax.rewards.reading import Scored, score_groups
from sejax.text.equivalence import Prover


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores recorded groups, writes them to the workdir and prints metrics.

  `config.rewards.recorded` names a file of one group per line: `{"id", "responses": [G texts],
  "verdicts": [G texts, or G lists of texts], "truncated_verdicts": optional, "gold": optional}`.
  `truncated_verdicts` says of each verdict, in the form of `verdicts`, whether it was cut at the
  limit (true or false). Without a Judge (`config.judge.use`) there need be no verdicts, and those
  that there are do not count. Writes `rewards.jsonl` (a group per line) and `metrics.json`.

  Raises:
    ValueError: naming the line that is not of this form.
  """
  repeats = config.judge.num_judge_repeats if config.judge.use else 0
  records = read_groups(config.rewards.recorded, config.group_size, repeats)
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
    raise ValueError(
      f"config.rewards.recorded={quoted(path)} is no file; give a file of JSON lines"
    )
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
