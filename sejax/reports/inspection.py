"""The page about a data set: sample records, histograms of lengths, and dropped records."""

import collections
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import markupsafe
import ml_collections
import tqdm

from sejax import storage
from sejax.data import batches, pipeline
from sejax.data.prepare import Dropped, Example, Preparer
from sejax.data.records import BadRecord, Source
from sejax.reports import charts, pages

_BARS = 24  # bars of a histogram
_IN_ORDER = pipeline.Options(batch_size=1, once=True)


class Statistics(NamedTuple):
  """Statistics of the records of a data set.

  Attributes:
    actor: tokens of each Actor's prompt.
    judge: tokens of each Judge's prompt up to the candidate.
    patches: image patches of each record.
    golds: indices in the source of the examples with a gold answer.
    dropped: records that cannot be used, with the reason.
    shown: the first examples, which the page shows in full.
    unreadable: examples whose gold answer cannot be read, with the reason.
  """

  actor: list[int]
  judge: list[int]
  patches: list[int]
  golds: set[int]
  dropped: list[Dropped]
  shown: list[Example]
  unreadable: list[Dropped]


def run(
  data: ml_collections.ConfigDict, preparer: Preparer, workdir: storage.Path, *, batch_size: int
) -> None:
  """Prepares the records of a data set and writes `inspect.html` to the workdir.

  Args:
    data: section `config.data`; `inspect_limit` is the number of records prepared (0: all), and
      `inspect_records` the number shown.
    batch_size: prompts of a batch, to count the shapes that batches can have.

  Raises:
    ValueError: the model directory cannot be opened.
  """
  source = preparer.source
  _ = preparer.processor  # Errors of the model directory are raised here, not for every record.
  total = min(len(source), data.inspect_limit or len(source))
  statistics = compute_statistics(source, preparer, total=total, shown=data.inspect_records)
  path = workdir / "inspect.html"
  pages.write(path, page(data, source, statistics, batch_size))
  kinds = collections.Counter(dropped.kind for dropped in statistics.dropped)
  dropped = f" ({pipeline.tally(kinds)})" if kinds else ""
  unread = f"; {len(statistics.unreadable)} answers cannot be read" if statistics.unreadable else ""
  usable = len(statistics.actor)
  print(f"{usable} of {total} records can be used{dropped}{unread}; written to {path}")


def compute_statistics(source: Source, preparer: Preparer, *, total: int, shown: int) -> Statistics:
  """Prepares the first `total` records in threads; keeps the first `shown` examples."""
  statistics = Statistics(
    actor=[], judge=[], patches=[], golds=set(), dropped=[], shown=[], unreadable=[]
  )
  stream = itertools.islice(pipeline.read(preparer, _IN_ORDER), total)
  for prepared in tqdm.tqdm(stream, total=total, desc="records"):
    if isinstance(prepared, Dropped):
      statistics.dropped.append(prepared)
      continue
    statistics.actor.append(len(prepared.actor))
    statistics.judge.append(len(prepared.judge))
    statistics.patches.append(len(prepared.patches))
    try:
      if source.gold(prepared.index) is not None:
        statistics.golds.add(prepared.index)
    except BadRecord as error:
      statistics.unreadable.append(Dropped(prepared.index, prepared.id, error.kind, str(error)))
    if len(statistics.shown) < shown:
      statistics.shown.append(prepared)
  return statistics


def count_shapes(statistics: Statistics, buckets: batches.Buckets, batch_size: int) -> int:
  """Returns the number of shapes that batches of these records can have; each compiles programs."""
  rows = zip(statistics.actor, statistics.judge, statistics.patches, strict=True)
  single = {buckets.choose(batches.Sizes(*row)) for row in rows}
  shapes = single
  # Each size of a batch is that of its longest row, which may be a different row for each size.
  for _ in range(min(batch_size, len(batches.Sizes._fields)) - 1):
    shapes = {batches.Sizes(*map(max, shape, row)) for shape in shapes for row in single}
  return len(shapes)


def page(
  data: ml_collections.ConfigDict, source: Source, statistics: Statistics, batch_size: int
) -> str:
  """Returns the HTML of the page; see `run`."""
  buckets = batches.Buckets.of(data)
  kinds = collections.Counter(dropped.kind for dropped in statistics.dropped)
  seen = len(statistics.actor) + len(statistics.dropped)
  facts = {
    "source": data.source,
    "split": data.split,
    "records in the set": len(source),
    "records read": seen,
    "usable": len(statistics.actor),
    "with an answer (for metrics)": len(statistics.golds),
    "with an answer that cannot be read": len(statistics.unreadable),
    "dropped": pipeline.tally(kinds) or 0,
    "shapes at most": count_shapes(statistics, buckets, batch_size),
  }
  problems = (("Dropped", statistics.dropped), ("Unreadable answers", statistics.unreadable))
  return pages.render(
    "inspection.html",
    title=f"{source.name}: data set",
    counts=facts.items(),
    histograms=[
      _histogram("Actor's prompt, tokens", statistics.actor, data.prompt_limit, buckets.prompt),
      _histogram("Judge's prompt, tokens", statistics.judge, buckets.prompt[-1], buckets.prompt),
      _histogram("Patches", statistics.patches, buckets.patch[-1], buckets.patch),
    ],
    problems=[
      (title, [(record.id, record.kind, record.message) for record in refused])
      for title, refused in problems
      if refused
    ],
    seen=seen,
    records=[_record(example, example.index in statistics.golds) for example in statistics.shown],
  )


def _record(example: Example, has_gold: bool) -> dict[str, Any]:
  """Returns the values of a record for the template."""
  answer = "with an answer" if has_gold else "without an answer"
  tokens = f"{len(example.actor)} + {len(example.judge)} tokens"
  return {
    "id": example.id,
    "thumbnails": [pages.make_thumbnail(file) for file in example.image_files],
    "question": example.question,
    "sizes": f"{tokens}, {len(example.patches)} patches, {answer}",
  }


def _histogram(
  title: str, values: Sequence[int], limit: int, sizes: Sequence[int]
) -> markupsafe.Markup:
  """Returns a histogram of the records' sizes, with the number of records in each bucket.

  Args:
    title: what the sizes measure.
    values: size of each record.
    limit: sizes from here on fall into the last bin.
    sizes: bucket sizes, ascending.
  """
  if not values:
    return markupsafe.Markup()
  width = max(1, -(-(limit + 1) // _BARS))
  bins = collections.Counter(min(value, limit) // width for value in values)
  counts = [bins[b] for b in range(limit // width + 1)]
  in_buckets = ", ".join(
    f"{high}: {sum(low < value <= high for value in values)}"
    for low, high in itertools.pairwise((-1, *sizes))
  )
  caption = (
    f"Limit {limit}; least {min(values)}, most {max(values)}. Records by bucket: {in_buckets}"
  )
  return charts.histogram(title, counts, width, caption)
