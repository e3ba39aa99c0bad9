"""Downloads models and data sets from the Hugging Face hub by name, and uploads models."""

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator, MutableMapping

import huggingface_hub
import jax

from sejax.errors import one_line, quoted
from sejax.parallel import hosts

_NEWEST = "main"
_NAME = re.compile(r"[\w-]+/[\w.-]+")
# What is read of each kind of repository.
_FILES = {
  "model": ("*.safetensors", "*.json", "*.txt", "*.jinja"),
  "dataset": ("*.parquet", "*.json", "*.jsonl", "*.tsv"),
}


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


def key(repository: str, revision: str, kind: str) -> str:
  """Returns how the commits of a run name a revision: `datasets/ORGANISATION/NAME@main`."""
  return f"{kind}s/{repository}@{revision or _NEWEST}"


def download(
  name: str, repository: str, revision: str, *, kind: str, commits: MutableMapping[str, str]
) -> str:
  """Downloads what is read of a repository, once per host, to the hub's own cache.

  A collective operation: all processes take the commit that process 0 finds. The variables of
  huggingface_hub hold: HF_HUB_OFFLINE=1 uses what was downloaded before, without a network.

  Args:
    name: of the field that gives the repository, for messages.
    repository: `ORGANISATION/NAME`.
    revision: branch, tag or commit; empty is the newest one.
    kind: `model` or `dataset`.
    commits: those of the run so far, by `key`; that of this revision is taken, or added.

  Returns:
    The path of a local folder.

  Raises:
    ValueError: the hub does not give it.
  """
  asked = key(repository, revision, kind)
  if asked not in commits:
    # Before anything is downloaded, so that no process waits for another meanwhile.
    found = _commit(name, repository, revision, kind) if jax.process_index() == 0 else None
    commits[asked] = hosts.gather_json(found)[0]
  return _download(name, repository, commits[asked], kind)


def _commit(name: str, repository: str, revision: str, kind: str) -> str:
  """Returns the commit of a revision; of what was downloaded before where the hub gives none."""
  with contextlib.suppress(Exception):  # As in `_download`, which says what is the matter.
    info = huggingface_hub.HfApi().repo_info(
      repository, repo_type=kind, revision=revision or _NEWEST
    )
    return info.sha
  return posixpath.basename(_download(name, repository, revision or _NEWEST, kind))


def _download(name: str, repository: str, revision: str, kind: str) -> str:
  try:
    return huggingface_hub.snapshot_download(
      repository, repo_type=kind, revision=revision, allow_patterns=_FILES[kind]
    )
  except Exception as error:  # The client's own, those of its HTTP library, and of the disk.
    at = "" if revision == _NEWEST else f" at {quoted(revision)}"
    raise ValueError(
      f"{name}={quoted(repository)} is not a directory, and the hub does not give it{at}"
      f" ({one_line(error, 90)}); where there is a network, `hf download {repository}"
      f"{' --repo-type dataset' if kind == 'dataset' else ''} --local-dir DIR` fetches it; then"
      " give DIR"
    ) from None


def create(repository: str, mark: str) -> str:
  """Creates a private repository for a model; returns its address. An earlier upload may be in it.

  Args:
    repository: `ORGANISATION/NAME`.
    mark: a file that every upload has; another repository with files is refused.

  Raises:
    ValueError: the hub does not create it, or it holds what no upload has left.
  """
  api = huggingface_hub.HfApi()
  with _explained(repository):
    created = api.create_repo(repository, private=True, exist_ok=True)
    files = {*api.list_repo_files(repository)} - {".gitattributes"}
  if files and mark not in files:
    raise ValueError(
      f"--push={quoted(repository)} holds {quoted(min(files))}, and no model that sejax has"
      " uploaded; give another name"
    )
  return str(created)


def upload(directory: str, repository: str) -> None:
  """Uploads a model directory to a repository, in place of all that is in it.

  Args:
    directory: a local folder; all of its files are uploaded.
    repository: `ORGANISATION/NAME`.

  Raises:
    ValueError: the hub does not take it.
  """
  with _explained(repository):
    huggingface_hub.HfApi().upload_folder(
      repo_id=repository,
      folder_path=directory,
      delete_patterns="*",  # but what is uploaded
      commit_message="Upload a model trained by sejax",
    )


@contextlib.contextmanager
def _explained(repository: str) -> Iterator[None]:
  """Raises a ValueError with a hint for whatever the hub's client raises."""
  try:
    yield
  except Exception as error:  # The client's own, and those of its HTTP library.
    raise ValueError(
      f"--push={quoted(repository)}: the hub does not take the model ({one_line(error, 120)});"
      " `hf auth login` gives this host a token that may write, and --mode=export tries again"
    ) from None
