"""Files and folders on this machine or in a bucket: what a run reads, and what it writes.

Paths are those of etils, which look like `pathlib`'s and reach `gs://` and `s3://` through fsspec.
"""

import os

# etils would read buckets with tensorflow wherever that is installed, which nothing here needs.
os.environ["EPATH_USE_TF"] = "false"

from sejax.storage.copies import cache_folder, local_copy, upload, written_locally
from sejax.storage.files import (
  Path,
  absolute,
  age,
  create,
  expand,
  glob,
  is_remote,
  probe,
  renew,
  write_text,
)
from sejax.storage.lines import LineFile

__all__ = [
  "LineFile",
  "Path",
  "absolute",
  "age",
  "cache_folder",
  "create",
  "expand",
  "glob",
  "is_remote",
  "local_copy",
  "probe",
  "renew",
  "upload",
  "write_text",
  "written_locally",
]
