"""`--mode=inspect`: one HTML page that shows what a run would read, and what it would drop.

The page stands alone: no script, no network. Records come in the order of the run's first epoch, so
that the pictures are a fair sample and the shapes are those that the run meets.
"""

import base64
import collections
import html
import io
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import ml_collections

from sejax.data import images
from sejax.data.batches import Buckets, Sizes, longest
from sejax.data.pipeline import Options, prepared
from sejax.data.prepare import Dropped, Example, Preparer
from sejax.data.records import Source
from sejax.data.sources import open_source

_THUMBNAIL = 240  # pixels, the longer side
_BARS = 48
_LISTED = 200  # ids of dropped records on the page

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; }
table { border-collapse: collapse; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td, p, figcaption { overflow-wrap: anywhere; }
svg { width: 100%; height: 9rem; }
.bar { fill: #4a7fb5; } .bucket { stroke: #888; stroke-dasharray: 4; } .limit { stroke: #c33; }
.records { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
figure { border: 1px solid #8886; border-radius: .4rem; margin: 0; padding: .7rem; }
figure img { background: #fff; display: block; margin-bottom: .4rem; max-width: 100%; }
.question { max-height: 14rem; overflow: auto; white-space: pre-wrap; }
small { opacity: .75; }
"""


class Survey(NamedTuple):
  """What became of the records.

  Attributes:
    lengths: of every example, in order.
    shown: the first examples.
    dropped: what gave no example.
  """

  lengths: list[Sizes]
  shown: list[Example]
  dropped: list[Dropped]


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes `inspect.html`.

  Raises:
    ValueError: the model directory or the source cannot be used.
  """
  source = open_source(config.data)
  if not len(source):
    raise ValueError(f"{source.name} holds no records")
  if not config.model.path:
    raise ValueError("config.model.path='' must be a model directory: its tokenizer counts tokens")
  preparer = Preparer.of(config, source)
  _ = preparer.processor  # A directory that lacks something is no fault of the records.
  count = min(config.data.inspect_limit or len(source), len(source))
  stream = itertools.islice(prepared(preparer, Options.of(config)), count)
  survey = survey_of(_with_progress(stream, count), config.data.inspect_records)
  path = workdir / "inspect.html"
  # Half a surrogate pair is one of the things that a bad record may hold.
  path.write_text(page(config, source, survey), encoding="utf-8", errors="replace")
  print(f"{path}: {len(survey.lengths)} usable, {len(survey.dropped)} dropped", file=sys.stderr)


def survey_of(stream: Iterable[Example | Dropped], show: int) -> Survey:
  """Counts prepared records; keeps the first `show` examples whole."""
  survey = Survey([], [], [])
  for made in stream:
    if isinstance(made, Dropped):
      survey.dropped.append(made)
      continue
    survey.lengths.append(longest([made]))
    if len(survey.shown) < show:
      survey.shown.append(made)
  return survey


def shapes(lengths: Sequence[Sizes], batch_size: int, buckets: Buckets) -> set[Sizes]:
  """Returns the shapes of batches of examples in this order."""
  return {
    buckets.choose(Sizes(*map(max, zip(*lengths[start : start + batch_size], strict=True))))
    for start in range(0, len(lengths), batch_size)
  }


def page(config: ml_collections.ConfigDict, source: Source, survey: Survey) -> str:
  """Returns the page."""
  data, buckets = config.data, Buckets.of(config.data)
  name = html.escape(source.name)
  met = shapes(survey.lengths, config.batch_size, buckets)
  facts = {
    "records in the set": len(source),
    "read here": len(survey.lengths) + len(survey.dropped),
    "usable": len(survey.lengths),
    "dropped": len(survey.dropped),
    f"shapes met in batches of {config.batch_size}": len(met),
  }
  columns = Sizes(*zip(*survey.lengths, strict=True)) if survey.lengths else Sizes((), (), ())
  return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>{name}</h1>
{_table(facts.items())}
<h2>Shapes</h2>
{_table(sorted(met), ("Actor's tokens", "Judge's tokens", "patches"))}
<h2>Lengths</h2>
<p><small>Dashed: buckets. Red: the limit.</small></p>
{_histogram("Actor's prompt, tokens", columns.actor, buckets.prompt, data.prompt_limit)}
{_histogram("Judge's prompt, tokens", columns.judge, buckets.prompt, buckets.prompt[-1])}
{_histogram("Images of a prompt, patches", columns.patches, buckets.patch, buckets.patch[-1])}
<h2>Dropped</h2>
{_dropped(survey.dropped)}
<h2>The first {len(survey.shown)} records of the run</h2>
<div class="records">{"".join(_record(source, example) for example in survey.shown)}</div>
</body></html>
"""


def _record(source: Source, example: Example) -> str:
  gold = source.gold(example.index)
  answer = "no answer" if gold is None else f"answer {gold}"
  sizes = longest([example])
  return f"""<figure>{"".join(map(_thumbnail, example.pictures))}
<div class="question">{html.escape(example.question)}</div>
<figcaption><small>{html.escape(example.id)}: Actor {sizes.actor} tokens, Judge {sizes.judge},
{sizes.patches} patches; {html.escape(answer)}</small></figcaption></figure>
"""


def _thumbnail(data: bytes) -> str:
  picture = images.decode(data)
  size = "x".join(map(str, picture.size))
  picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
  file = io.BytesIO()
  picture.save(file, "PNG")
  encoded = base64.b64encode(file.getvalue()).decode()
  return f'<img src="data:image/png;base64,{encoded}" alt="{size}" title="{size}">'


def _dropped(dropped: Sequence[Dropped]) -> str:
  if not dropped:
    return "<p>Nothing.</p>"
  kinds = collections.Counter(record.kind for record in dropped).most_common()
  rows = [(record.id, record.kind, record.message) for record in dropped[:_LISTED]]
  more = len(dropped) - len(rows)
  rest = f"<p>And {more} more.</p>" if more else ""
  return _table(kinds, ("kind", "records")) + _table(rows, ("id", "kind", "what is wrong")) + rest


def _histogram(title: str, lengths: Sequence[int], buckets: Sequence[int], limit: int) -> str:
  """Draws bars from 0 to the largest bucket."""
  end = buckets[-1]
  counts = collections.Counter(min(length * _BARS // end, _BARS - 1) for length in lengths)
  highest = max(counts.values(), default=1)
  bars = "".join(
    f'<rect class="bar" x="{place * 1000 / _BARS:.1f}" width="{900 / _BARS:.1f}"'
    f' y="{100 - 98 * count / highest:.1f}" height="{98 * count / highest:.1f}"/>'
    for place, count in sorted(counts.items())
  )
  lines = "".join(
    f'<line class="{kind}" x1="{1000 * at / end:.1f}" x2="{1000 * at / end:.1f}" y2="100"/>'
    for kind, at in [*(("bucket", size) for size in buckets), ("limit", limit)]
  )
  span = f"{min(lengths)} to {max(lengths)}" if lengths else "none"
  return f"""<h3>{title}: {span} <small>(buckets {", ".join(map(str, buckets))})</small></h3>
<svg viewBox="0 0 1000 100" preserveAspectRatio="none">{bars}{lines}</svg>
"""


def _table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
  def row(cells: Sequence[object], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

  header = row(head, "th") if head else ""
  return f"<table>{header}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _with_progress(stream: Iterable[Example | Dropped], count: int) -> Iterator[Example | Dropped]:
  """Passes a stream on and draws a bar on standard error as it goes."""
  for done, made in enumerate(stream, start=1):
    filled = 40 * done // count
    if done == count or filled > 40 * (done - 1) // count:
      end = "\n" if done == count else ""
      print(f"\r[{'#' * filled:<40}] {done}/{count}", end=end, file=sys.stderr, flush=True)
    yield made
