"""Counts the held-out problems that are also in the training set."""

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
  """Number of held-out problems that are also in the training set.

  Attributes:
    shared: held-out problems with the question and images of a training record.
    readable: held-out problems that could be read; only these are compared and evaluated.
  """

  shared: int
  readable: int


def count(training: Source, heldout: Source, problems: int) -> Overlap:
  """Compares the first held-out problems with all training records.

  Two records are the same if their questions are equal, apart from white space and the position of
  `<image>`, and their image files have the same bytes. Ids are ignored, because two files may hold
  the same records. A collective operation: each process reads its share of the training records,
  and all held-out problems.

  Args:
    training: the training records.
    heldout: source whose first records are the held-out problems.
    problems: number of held-out problems.
  """
  if isinstance(training, Figures) and isinstance(heldout, Figures):
    # Drawing a hundred thousand takes minutes, and by construction splits share no problem.
    return Overlap(problems if training.split == heldout.split else 0, problems)
  heldout_digests = collections.Counter(_digests(heldout, range(problems)))
  indices = range(jax.process_index(), len(training), jax.process_count())
  bar = tqdm.tqdm(
    indices, "comparing with held-out problems", delay=3, disable=jax.process_index() > 0
  )
  own = sorted(heldout_digests.keys() & set(_digests(training, bar)))
  common = set().union(*hosts.gather_json(own))
  shared = sum(heldout_digests[digest] for digest in common)
  return Overlap(shared=shared, readable=heldout_digests.total())


def _digests(source: Source, indices: range | tqdm.tqdm) -> Iterator[str]:
  """Yields a digest of the question and the image files of each readable record."""
  for index in indices:
    try:
      record = source[index]
    except BadRecord:  # the pipeline reports it
      continue
    question = " ".join(record.question.replace("<image>", " ").split())
    digest = hashlib.blake2b(question.encode(errors="surrogatepass"), digest_size=16)
    for file in record.images:
      digest.update(hashlib.blake2b(file, digest_size=16).digest())
    yield digest.hexdigest()
