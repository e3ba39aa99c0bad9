"""One writer to a workdir: a lock file names the process that holds it, which renews it.

Of the libraries, filelock either asks the file system for a lock, which folders shared by several
machines often do not give, or leaves a file behind whose owner may be gone. Here the file holds the
owner's host and pid, and its time of modification is renewed while the owner lives.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from typing import NamedTuple, Self

import jax
import numpy as np

from sejax.parallel import hosts

NAME = "lock.json"
# An owner on another host that has not renewed the lock for so long is gone.
_STALE_SECONDS = 180.0
_RENEWAL_SECONDS = 20.0
# A file that is being written, or was when its writer was killed.
_UNREADABLE_SECONDS = 5.0
_held: set[str] = set()  # tokens of the locks of this process


class Owner(NamedTuple):
  """Who holds a lock.

  Attributes:
    host: the machine's name.
    pid: of the process.
    machine: what its pids count on: the machine since it was started, or a container of it.
    token: of this one time that the lock was taken.
  """

  host: str
  pid: int
  machine: str
  token: str

  @classmethod
  def here(cls) -> Self:
    """Returns this process, with a new token."""
    return cls(socket.gethostname(), os.getpid(), _machine(), uuid.uuid4().hex)

  @classmethod
  def read(cls, path: pathlib.Path) -> Self | None:
    """Returns who a lock file names; None where it is being written or names nobody.

    Raises:
      FileNotFoundError: nobody holds the lock.
    """
    try:
      return cls(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
      return None


class Lock:
  """The lock of a workdir, of a run's process 0; a context manager.

  All processes of a run enter together, so that all are refused where one is.
  """

  def __init__(self, workdir: pathlib.Path):
    """Takes nothing yet.

    Args:
      workdir: the folder; made where it is missing.
    """
    self._workdir = workdir
    self._path = workdir / NAME
    self._owner = Owner.here()
    self._left = threading.Event()

  def __enter__(self) -> Self:
    """Takes the lock.

    Raises:
      ValueError: another process holds it; naming its host and pid.
    """
    self._workdir.mkdir(parents=True, exist_ok=True)
    refusal = self._take() if jax.process_index() == 0 else ""
    if said := hosts.gather_json(refusal)[0]:
      raise ValueError(said)
    if jax.process_index() == 0:
      self._renewal = threading.Thread(target=self._renew, daemon=True, name="lock")
      self._renewal.start()
    return self

  def __exit__(self, *error: object) -> None:
    if jax.process_index() > 0:
      return
    self._left.set()
    self._renewal.join()
    _held.discard(self._owner.token)
    if self.is_held():
      self._path.unlink(missing_ok=True)

  def is_held(self) -> bool:
    """Whether the lock is still this process's: a machine that slept for long may have lost it."""
    try:
      return Owner.read(self._path) == self._owner
    except FileNotFoundError:
      return False

  def require(self) -> None:
    """Checks `is_held`, in all processes together.

    Raises:
      ValueError: it is another's now.
    """
    lost = jax.process_index() == 0 and not self.is_held()
    if hosts.any_process(np.array([lost])).any():
      raise ValueError(
        f"{self._path} no longer belongs to this process: it was removed, or taken over after"
        " minutes without renewal; to go on, give the same command when no other process uses the"
        " workdir"
      )

  def _take(self) -> str:
    """Returns why the lock cannot be had; empty where it was taken."""
    _held.add(self._owner.token)
    if refusal := self._contend():
      _held.discard(self._owner.token)
    return refusal

  def _contend(self) -> str:
    deadline = time.monotonic() + 2 * _UNREADABLE_SECONDS
    while time.monotonic() < deadline:
      if self._write_new(self._path):
        return ""
      with contextlib.suppress(FileNotFoundError):  # given back meanwhile
        owner = Owner.read(self._path)
        if not self._is_stale(owner):
          return self._refusal(owner)
        self._remove_stale()
    return self._refusal(None)

  def _write_new(self, path: pathlib.Path) -> bool:
    """Writes this owner to a file that nobody else has written; returns whether it could."""
    try:
      with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(self._owner._asdict()) + "\n")
    except FileExistsError:
      return False
    return True

  def _remove_stale(self) -> None:
    """Removes a stale lock, one process at a time: a second might remove the first's new one."""
    turn = self._path.with_name(f".{NAME}.stale")
    if not self._write_new(turn):
      time.sleep(0.02)
      if self._age(turn) > _UNREADABLE_SECONDS:  # killed in its turn
        turn.unlink()
      return
    try:
      if self._is_stale(Owner.read(self._path)):
        self._path.unlink()
    finally:
      turn.unlink(missing_ok=True)

  def _is_stale(self, owner: Owner | None) -> bool:
    age = self._age(self._path)
    if owner is None:
      return age > _UNREADABLE_SECONDS
    if owner.machine == self._owner.machine:
      # A process that has this one's pid is this one, or the same of a container's earlier start.
      return not _is_alive(owner.pid) or (owner.pid == os.getpid() and owner.token not in _held)
    return age > _STALE_SECONDS

  def _age(self, path: pathlib.Path) -> float:
    """Seconds since a file was last renewed, by the file system's own clock."""
    probe = self._path.with_name(f".{NAME}.{self._owner.token}")
    try:
      probe.touch()
      return probe.stat().st_mtime - path.stat().st_mtime
    finally:
      probe.unlink(missing_ok=True)

  def _refusal(self, owner: Owner | None) -> str:
    by = "another process" if owner is None else f"process {owner.pid} on {owner.host}"
    return (
      f"{self._workdir} is in use by {by}; wait for it, stop it, or give another --workdir (if it"
      f" is surely gone, remove {self._path})"
    )

  def _renew(self) -> None:
    while not self._left.wait(_RENEWAL_SECONDS):
      with contextlib.suppress(OSError):  # A file server may be away for a while.
        if self.is_held():
          os.utime(self._path)


def _machine() -> str:
  """Names what pids count on: a host from its start to its end, or a container on it."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):  # where there is no /proc, the host's name must do
    parts.append(
      pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    )
    parts.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(parts)


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # another user's
    return True
  try:  # One that has ended stays listed until its parent asks for its exit status.
    status = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
  except OSError:
    return True
  return status.rpartition(")")[2].split()[0] not in ("Z", "X")
