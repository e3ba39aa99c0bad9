"""How many held-out problems are problems that are trained on."""

import collections
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import tqdm

from sejax.data.figures import Figures
from sejax.data.records import BadRecord, Source
from sejax.parallel import hosts


class Overlap(NamedTuple):
  """What held-out problems have in common with training records.

  Attributes:
    shared: problems that have a training record's question and pictures.
    readable: problems that could be compared; others are no problems for anybody.
  """

  shared: int
  readable: int


def count(training: Source, heldout: Source, problems: int) -> Overlap:
  """Compares the first held-out problems with all training records.

  Questions are the same but for blanks and where their `<image>` stand; pictures, if their encoded
  files are. Ids do not count, as two files may hold the same records. Reads each training record
  once, shared out to the processes, and in every process the held-out problems; all processes call
  it together.

  Args:
    training: the records that are trained on.
    heldout: those that the held-out problems are the first of.
    problems: the number of held-out problems.
  """
  if isinstance(training, Figures) and isinstance(heldout, Figures):
    # Drawing a hundred thousand would take minutes, and their splits share no problem.
    return Overlap(problems if training.split == heldout.split else 0, problems)
  wanted = collections.Counter(_contents(heldout, range(problems)))
  places = range(jax.process_index(), len(training), jax.process_count())
  shown = tqdm.tqdm(
    places, "comparing with held-out problems", delay=3, disable=jax.process_index() > 0
  )
  found = sorted(wanted.keys() & set(_contents(training, shown)))
  shared = sum(wanted[content] for content in set().union(*hosts.gather_json(found)))
  return Overlap(shared, wanted.total())


def _contents(source: Source, places: range | tqdm.tqdm) -> Iterator[str]:
  """Yields a digest of the question and the encoded pictures of each readable record."""
  for place in places:
    try:
      record = source[place]
    except BadRecord:  # the pipeline tells of it
      continue
    question = " ".join(record.question.replace("<image>", " ").split())
    digest = hashlib.blake2b(question.encode(errors="surrogatepass"), digest_size=16)
    for picture in record.images:
      digest.update(hashlib.blake2b(picture, digest_size=16).digest())
    yield digest.hexdigest()
