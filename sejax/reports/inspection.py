"""A page about a data set: what its records look like, how long they are, and what was dropped."""

import collections
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import markupsafe
import ml_collections
import tqdm

from sejax.data import batches, pipeline
from sejax.data.prepare import Dropped, Example, Preparer
from sejax.data.records import BadRecord, Source
from sejax.reports import pages

_BARS = 24  # of a histogram
_IN_ORDER = pipeline.Options(batch_size=1, once=True)


class Counted(NamedTuple):
  """Statistics of a set's records, without their pictures.

  Attributes:
    actor: tokens of each Actor prompt.
    judge: tokens of each Judge prompt up to the candidate.
    patches: image patches of each record.
    golds: indices in the source of the examples that have an answer.
    dropped: records that gave no example, and why.
    shown: the first examples, which the page shows.
    unreadable: examples whose answer cannot be read, and why.
  """

  actor: list[int]
  judge: list[int]
  patches: list[int]
  golds: set[int]
  dropped: list[Dropped]
  shown: list[Example]
  unreadable: list[Dropped]


def run(
  data: ml_collections.ConfigDict, preparer: Preparer, workdir: pathlib.Path, *, batch_size: int
) -> None:
  """Prepares a set's records in order and writes `inspect.html` to the workdir.

  Args:
    data: the configuration's section; `inspect_limit` says how many records are counted, and
      `inspect_records` how many are shown.
    preparer: of the set.
    workdir: where the page goes.
    batch_size: prompts per step, to count shapes.

  Raises:
    ValueError: the model's directory cannot be opened.
  """
  source = preparer.source
  _ = preparer.processor  # Errors of the model directory are raised here, not for every record.
  total = min(len(source), data.inspect_limit or len(source))
  counted = count(source, preparer, total, data.inspect_records)
  path = workdir / "inspect.html"
  pages.write(path, page(data, source, counted, batch_size))
  kinds = collections.Counter(dropped.kind for dropped in counted.dropped)
  left = f" ({pipeline.tally(kinds)})" if kinds else ""
  unread = f"; {len(counted.unreadable)} answers cannot be read" if counted.unreadable else ""
  print(f"{len(counted.actor)} of {total} records can be used{left}{unread}; written to {path}")


def count(source: Source, preparer: Preparer, total: int, shown: int) -> Counted:
  """Prepares the first `total` records, in threads, and keeps the first `shown` examples."""
  counted = Counted(
    actor=[], judge=[], patches=[], golds=set(), dropped=[], shown=[], unreadable=[]
  )
  stream = itertools.islice(pipeline.read(preparer, _IN_ORDER), total)
  for prepared in tqdm.tqdm(stream, total=total, desc="records"):
    if isinstance(prepared, Dropped):
      counted.dropped.append(prepared)
      continue
    counted.actor.append(len(prepared.actor))
    counted.judge.append(len(prepared.judge))
    counted.patches.append(len(prepared.patches))
    try:
      if source.gold(prepared.index) is not None:
        counted.golds.add(prepared.index)
    except BadRecord as error:
      counted.unreadable.append(Dropped(prepared.index, prepared.id, error.kind, str(error)))
    if len(counted.shown) < shown:
      counted.shown.append(prepared)
  return counted


def shapes(counted: Counted, buckets: batches.Buckets, batch_size: int) -> int:
  """Returns how many different shapes batches of these records can have.

  Each is compiled once.
  """
  rows = zip(counted.actor, counted.judge, counted.patches, strict=True)
  single = {buckets.choose(batches.Sizes(*row)) for row in rows}
  met = single
  # Each of a batch's sizes may come from another of its rows.
  for _ in range(min(batch_size, len(batches.Sizes._fields)) - 1):
    met = {batches.Sizes(*map(max, one, other)) for one in met for other in single}
  return len(met)


def page(data: ml_collections.ConfigDict, source: Source, counted: Counted, batch_size: int) -> str:
  """Returns the HTML of the page; see `run`."""
  buckets = batches.Buckets.of(data)
  kinds = collections.Counter(dropped.kind for dropped in counted.dropped)
  seen = len(counted.actor) + len(counted.dropped)
  facts = {
    "source": data.source,
    "split": data.split,
    "records in the set": len(source),
    "records read": seen,
    "usable": len(counted.actor),
    "with an answer (for metrics)": len(counted.golds),
    "with an answer that cannot be read": len(counted.unreadable),
    "dropped": pipeline.tally(kinds) or 0,
    "shapes at most": shapes(counted, buckets, batch_size),
  }
  problems = (("Dropped", counted.dropped), ("Unreadable answers", counted.unreadable))
  return pages.render(
    "inspection.html",
    title=f"{source.name}: data set",
    counts=facts.items(),
    histograms=[
      _histogram("Actor's prompt, tokens", counted.actor, data.prompt_limit, buckets.prompt),
      _histogram("Judge's prompt, tokens", counted.judge, buckets.prompt[-1], buckets.prompt),
      _histogram("Patches", counted.patches, buckets.patch[-1], buckets.patch),
    ],
    problems=[
      (title, [(record.id, record.kind, record.message) for record in refused])
      for title, refused in problems
      if refused
    ],
    seen=seen,
    records=[_record(example, example.index in counted.golds) for example in counted.shown],
  )


def _record(example: Example, has_gold: bool) -> dict[str, Any]:
  """Returns what the page says of one record."""
  answer = "with an answer" if has_gold else "without an answer"
  tokens = f"{len(example.actor)} + {len(example.judge)} tokens"
  return {
    "id": example.id,
    "pictures": [pages.picture(data) for data in example.pictures],
    "question": example.question,
    "sizes": f"{tokens}, {len(example.patches)} patches, {answer}",
  }


def _histogram(
  title: str, values: Sequence[int], limit: int, sizes: Sequence[int]
) -> markupsafe.Markup:
  """Returns a histogram of the records' sizes; the last bin takes all from the limit on."""
  if not values:
    return markupsafe.Markup()
  width = max(1, -(-(limit + 1) // _BARS))
  bins = collections.Counter(min(value, limit) // width for value in values)
  counts = [bins[b] for b in range(limit // width + 1)]
  fills = itertools.pairwise((-1, *sizes))
  held = ", ".join(f"{high}: {sum(low < v <= high for v in values)}" for low, high in fills)
  said = f"Limit {limit}; least {min(values)}, most {max(values)}. Records by bucket: {held}"
  return pages.histogram(title, counts, width, said)
