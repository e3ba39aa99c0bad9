"""Downloads models and data sets from the Hugging Face hub by name, and uploads models."""

import os
import posixpath
import re
from typing import NamedTuple

import huggingface_hub
import jax
from huggingface_hub import errors

from sejax.errors import one_line, quoted
from sejax.parallel import hosts

_NAME = re.compile(r"[\w-]+/[\w.-]+")
# What is read of each kind of repository.
_FILES = {
  "model": ("*.safetensors", "*.json", "*.txt", "*.jinja"),
  "dataset": ("*.parquet", "*.json", "*.jsonl", "*.tsv"),
}


class Snapshot(NamedTuple):
  """A local copy of a repository of the hub.

  Attributes:
    path: of its folder.
    revision: the commit that it is of.
  """

  path: str
  revision: str


def is_name(path: str) -> bool:
  """Whether a path has the form of a name on the hub, and is none of this machine."""
  # Not `pathlib`, whose `exists` raises an error for strings that are too long for a path.
  return not os.path.exists(path) and bool(_NAME.fullmatch(path))


def require_name(name: str, repository: str) -> None:
  """Checks that a text has the form of a name on the hub.

  Args:
    name: of the flag that gives it, for messages.

  Raises:
    ValueError: it has not.
  """
  if not _NAME.fullmatch(repository):
    raise ValueError(f"{name}={quoted(repository)} is no name on the hub; give ORGANISATION/NAME")


def require_directory(name: str, path: str) -> None:
  """Checks that a path is a directory, or empty.

  Args:
    name: of the field that gives the path, for messages.

  Raises:
    ValueError: it is neither.
  """
  if path and not os.path.isdir(path):
    raise ValueError(
      f"{name}={quoted(path)} is not a directory; give one that holds weights, or a name on the hub"
      " such as Qwen/Qwen2.5-VL-3B-Instruct"
    )


def local_directory(name: str, path: str) -> str:
  """Returns the local directory of a model, after downloading it if `path` is a hub name.

  Args:
    name: of the field that gives the path, for messages.
    path: an existing directory, which is returned as it is, or a hub name `ORGANISATION/NAME`,
      which is downloaded once and then cached. May be empty.

  Raises:
    ValueError: the path is neither a directory nor a hub name, or the download failed.
  """
  if is_name(path):
    return download(name, path, kind="model").path
  require_directory(name, path)
  return path


def download(name: str, repository: str, revision: str = "", *, kind: str) -> Snapshot:
  """Downloads what is read of a repository, once per host, to the hub's own cache.

  A collective operation: all processes get the commit that process 0 finds. The variables of
  huggingface_hub hold: HF_HUB_OFFLINE=1 uses what was downloaded before, without a network.

  Args:
    name: of the field that gives the repository, for messages.
    repository: `ORGANISATION/NAME`.
    revision: branch, tag or commit; empty is the newest one.
    kind: `model` or `dataset`.

  Raises:
    ValueError: the hub does not give it.
  """
  found = None
  if jax.process_index() == 0:
    found = _download(name, repository, revision, kind)
  revision = hosts.gather_json(found and found.revision)[0]
  return found or _download(name, repository, revision, kind)


def _download(name: str, repository: str, revision: str, kind: str) -> Snapshot:
  try:
    path = huggingface_hub.snapshot_download(
      repository, repo_type=kind, revision=revision or None, allow_patterns=_FILES[kind]
    )
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
    at = f" at {quoted(revision)}" if revision else ""
    raise ValueError(
      f"{name}={quoted(repository)} is not a directory, and the hub does not give it{at}"
      f" ({one_line(error, 90)}); where there is a network, `hf download {repository}"
      f"{' --repo-type dataset' if kind == 'dataset' else ''} --local-dir DIR` fetches it; then"
      " give DIR"
    ) from None
  return Snapshot(path, posixpath.basename(path))


def upload(directory: str, repository: str) -> str:
  """Uploads a model directory to the hub; returns the repository's address.

  Args:
    directory: a local folder; all of its files are uploaded.
    repository: `ORGANISATION/NAME`; created if it is new, and private then.

  Raises:
    ValueError: the hub does not take it.
  """
  api = huggingface_hub.HfApi()
  try:
    created = api.create_repo(repository, private=True, exist_ok=True)
    api.upload_folder(
      repo_id=repository, folder_path=directory, commit_message="Upload a model trained by sejax"
    )
  except (errors.HfHubHTTPError, OSError, ValueError) as error:
    raise ValueError(
      f"--push={quoted(repository)}: the hub does not take the model ({one_line(error, 120)});"
      " `hf auth login` gives this host a token that may write, and --mode=export tries again"
    ) from None
  return str(created)
