"""Downloads models from the Hugging Face hub by name."""

import os
import re

import huggingface_hub
from huggingface_hub import errors

from sejax.errors import one_line, quoted

_NAME = re.compile(r"[\w-]+/[\w.-]+")
_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")


def local_directory(name: str, path: str) -> str:
  """Returns the local directory of a model, after downloading it if `path` is a hub name.

  Args:
    name: of the field that gives the path, for messages.
    path: an existing directory, which is returned as it is, or a hub name `ORGANISATION/NAME`,
      which is downloaded once and then cached. May be empty.

  Raises:
    ValueError: the path is neither a directory nor a hub name, or the download failed.
  """
  # Not `pathlib`, whose `is_dir` raises an error for strings that are too long for a path.
  if not path or os.path.isdir(path):
    return path
  if not _NAME.fullmatch(path):
    raise ValueError(
      f"{name}={quoted(path)} is not a directory; give one that holds weights, or a name on the hub"
      " such as Qwen/Qwen2.5-VL-3B-Instruct"
    )
  try:
    return huggingface_hub.snapshot_download(path, allow_patterns=_FILES)
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
    raise ValueError(
      f"{name}={quoted(path)} is not a directory, and the hub does not give it"
      f" ({one_line(error, 90)}); where there is a network, `hf download {path} --local-dir DIR`"
      " fetches it; then give DIR"
    ) from None
