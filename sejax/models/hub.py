"""Model directories that are named by the hub's names."""

import os
import re

import huggingface_hub
import ml_collections
from huggingface_hub import errors

from sejax.errors import quoted

_NAME = re.compile(r"[\w-]+/[\w.-]+")
_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")


def local(path: str) -> str:
  """Returns a directory that is there as it is; files of a hub name are downloaded once.

  Args:
    path: a directory, or `ORGANISATION/NAME`; may be empty.

  Raises:
    ValueError: it is neither.
  """
  # pathlib's raises where a text is too long for a path.
  if not path or os.path.isdir(path):
    return path
  if not _NAME.fullmatch(path):
    raise ValueError(
      f"{quoted(path)} is no directory; give one that holds weights, or a name on the hub such as"
      " Qwen/Qwen2.5-VL-3B-Instruct"
    )
  try:
    return huggingface_hub.snapshot_download(path, allow_patterns=_FILES)
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
    said = " ".join(str(error).split())[:90]
    raise ValueError(
      f"{quoted(path)} is no directory, and the hub does not give it ({said}...); where there is a"
      f" network, `hf download {path} --local-dir DIR` fetches it; then give DIR"
    ) from None


def with_local_models(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the configuration with directories in the place of the hub's names, see `local`.

  Args:
    config: of any mode; `model.path` and `judge.path` are looked at.

  Raises:
    ValueError: one of them is neither a directory nor a name.
  """
  config = config.copy_and_resolve_references()
  for name in ("model", "judge"):
    try:
      config[name].path = local(config[name].path)
    except ValueError as error:
      raise ValueError(f"config.{name}.path={error}") from None
  return config
