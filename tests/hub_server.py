"""A stand-in for the Hugging Face hub: repositories of files in memory, over HTTP.

It answers what huggingface_hub asks to download a repository and to upload a folder, every file
as a regular one.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http import server


class Hub:
  """The repositories, each a list of commits: dictionaries from paths to contents.

  Attributes:
    repositories: commits by `models/NAME` or `datasets/NAME`, the oldest first.
    requests: method and path of each request.
  """

  def __init__(self):
    self.repositories: dict[str, list[dict[str, bytes]]] = {}
    self.requests: list[str] = []

  def commit(self, repository: str, files: dict[str, bytes]) -> str:
    """Adds a commit with these files alone; returns its name."""
    self.repositories.setdefault(repository, []).append(files)
    return self.name(repository, len(self.repositories[repository]) - 1)

  def name(self, repository: str, number: int) -> str:
    """Returns the name of a commit."""
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()

  def find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
    """Returns name and files of a revision; None if there is none."""
    commits = self.repositories.get(repository, [])
    names = [self.name(repository, number) for number in range(len(commits))]
    if revision == "main" and commits:
      return names[-1], commits[-1]
    return (revision, commits[names.index(revision)]) if revision in names else None


def _handler(hub: Hub) -> type[server.BaseHTTPRequestHandler]:
  class Handler(server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
      pass

    def _answer(self, status, content=b"", **headers):
      if not isinstance(content, bytes):
        content = json.dumps(content).encode()
        headers.setdefault("Content-Type", "application/json")
      self.send_response(status)
      for key, value in {"Content-Length": str(len(content)), **headers}.items():
        self.send_header(key.replace("_", "-"), value)
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(content)

    def _missing(self, code):
      self._answer(404, {"error": code}, X_Error_Code=code)

    def do_GET(self):
      hub.requests.append(f"{self.command} {self.path}")
      path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
      pattern = r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?"
      if match := re.fullmatch(pattern, path):
        kind, name, what, revision = match.groups()
        found = hub.find(f"{kind}/{name}", revision)
        if found is None:
          exists = f"{kind}/{name}" in hub.repositories
          if exists and what == "tree" and not hub.repositories[f"{kind}/{name}"]:
            return self._answer(200, [])
          return self._missing("RevisionNotFound" if exists else "RepoNotFound")
        sha, files = found
        if what == "revision":
          siblings = [{"rfilename": file} for file in files]
          return self._answer(200, {"id": name, "sha": sha, "siblings": siblings})
        return self._answer(
          200,
          [
            {"type": "file", "path": file, "size": len(content), "oid": _oid(content)}
            for file, content in files.items()
          ],
        )
      if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
        kind, name, revision, file = match.groups()
        found = hub.find(f"{kind or 'models/'}{name}", revision)
        if found is None or file not in found[1]:
          return self._missing("EntryNotFound")
        content = found[1][file]
        return self._answer(200, content, ETag=f'"{_oid(content)}"', X_Repo_Commit=found[0])
      return self._missing("RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
      hub.requests.append(f"{self.command} {self.path}")
      body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
      path = urllib.parse.urlparse(self.path).path
      if path == "/api/repos/create":
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        hub.repositories.setdefault(f"models/{name}", [])
        return self._answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
      if path == "/api/validate-yaml":  # of a README.md
        return self._answer(200, {"errors": [], "warnings": []})
      if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
        files = json.loads(body)["files"]
        modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
        return self._answer(200, {"files": modes})
      if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
          line["value"]["path"]: base64.b64decode(line["value"]["content"])
          for line in lines
          if line["key"] == "file"
        }
        removed = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
        repository = f"models/{match[1]}"
        before = (hub.repositories.get(repository) or [{}])[-1]
        before = {file: content for file, content in before.items() if file not in removed}
        sha = hub.commit(repository, before | added)
        url = f"http://{self.headers['Host']}/{match[1]}/commit/{sha}"
        return self._answer(200, {"commitUrl": url, "commitOid": sha})
      return self._missing("RepoNotFound")

  return Handler


def _oid(content: bytes) -> str:
  return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[tuple[Hub, dict[str, str]]]:
  """Runs a stand-in; yields it, and the variables by which huggingface_hub finds it."""
  hub = Hub()
  with server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as running:
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield (
      hub,
      {
        "HF_ENDPOINT": f"http://127.0.0.1:{running.server_port}",
        "HF_TOKEN": "hf_token",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
      },
    )
    running.shutdown()
    thread.join()
