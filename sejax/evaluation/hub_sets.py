"""Benchmarks from the Hugging Face hub, by their published names."""

import hashlib
import os
from collections.abc import MutableMapping, Sequence

from sejax import storage
from sejax.errors import quoted
from sejax.evaluation.benchmarks import BENCHMARKS
from sejax.models import hub

PUBLISHED = "hub"  # value of `config.eval.sets_path` for the published name of each benchmark


def is_asked_for(sets_path: str) -> bool:
  """Whether `config.eval.sets_path` names something on the hub."""
  return sets_path == PUBLISHED or hub.is_name(sets_path)


def download(
  names: Sequence[str], sets_path: str, revision: str, commits: MutableMapping[str, str]
) -> str:
  """Downloads benchmarks; returns a folder that holds them all.

  Args:
    sets_path: `PUBLISHED`, or for a single benchmark its name on the hub.
    revision: branch, tag or commit of each, with commas between them; empty is the newest.
    commits: see `hub.download`.

  Raises:
    ValueError: a benchmark has no published name, there are too many or too few names or revisions,
      or the hub does not give one.
  """
  field = f"config.eval.sets_path={quoted(sets_path)}"
  if sets_path != PUBLISHED and len(names) > 1:
    raise ValueError(
      f"{field} is one set, and config.eval.sets has {len(names)}; give {PUBLISHED}, for each by"
      " its published name"
    )
  asked = revision.split(",") if revision else [""] * len(names)
  if len(asked) != len(names):
    raise ValueError(
      f"config.eval.revision={quoted(revision)} has {len(asked)} revisions of {len(names)} sets;"
      " give one each, or none"
    )
  folders = {}
  for name, of_name in zip(names, asked, strict=True):
    repository = BENCHMARKS[name].hub if sets_path == PUBLISHED else sets_path
    if repository is None:
      raise ValueError(
        f"{name} is not on the hub; give its file or folder as config.eval.sets_path"
      )
    folders[name] = hub.download(
      "config.eval.sets_path", repository, of_name, kind="dataset", commits=commits
    )
  return _linked(folders)


def _linked(folders: dict[str, str]) -> str:
  """Returns a folder with a link to each downloaded one, by the name of its benchmark."""
  key = hashlib.sha256(repr(sorted(folders.items())).encode()).hexdigest()[:16]
  folder = storage.cache_folder() / "sets" / key
  folder.mkdir(parents=True, exist_ok=True)
  for name, downloaded in folders.items():
    link = os.fspath(folder / name)
    if not os.path.lexists(link):
      partial = f"{link}.{os.getpid()}"
      os.symlink(downloaded, partial)
      os.replace(partial, link)
  return os.fspath(folder)
