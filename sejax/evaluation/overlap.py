"""How many held-out problems are problems that are trained on."""

import collections
import hashlib
from collections.abc import Iterator

import jax
import tqdm

from sejax.data.figures import Figures
from sejax.data.records import BadRecord, Source
from sejax.parallel import hosts


def count(training: Source, heldout: Source, problems: int) -> int:
  """Returns how many of the first held-out problems have a training record's question and pictures.

  Ids do not count, as two files may hold the same records. Reads every record of both once, each
  process a part of the training ones; all processes call it together.

  Args:
    training: the records that are trained on.
    heldout: those that the held-out problems are the first of.
    problems: the number of held-out problems.
  """
  if isinstance(training, Figures) and isinstance(heldout, Figures):
    # Drawing a hundred thousand would take minutes, and their splits share no problem.
    return problems if training.split == heldout.split else 0
  wanted = collections.Counter(_contents(heldout, range(problems)))
  places = range(jax.process_index(), len(training), jax.process_count())
  shown = tqdm.tqdm(
    places, "comparing with held-out problems", delay=3, disable=jax.process_index() > 0
  )
  found = sorted(wanted.keys() & set(_contents(training, shown)))
  return sum(wanted[content] for content in set().union(*hosts.gather_json(found)))


def _contents(source: Source, places: range | tqdm.tqdm) -> Iterator[str]:
  """Yields a digest of the question and the encoded pictures of each readable record."""
  for place in places:
    try:
      record = source[place]
    except BadRecord:  # the pipeline tells of it
      continue
    digest = hashlib.blake2b(record.question.encode(errors="surrogatepass"), digest_size=16)
    for picture in record.images:
      digest.update(hashlib.blake2b(picture, digest_size=16).digest())
    yield digest.hexdigest()
