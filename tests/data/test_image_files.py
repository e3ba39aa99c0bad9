"""What a record gives for an image: names inside a folder, data URIs, and base64."""

import base64
import os
import urllib.parse

import pytest

from sejax.data import image_files
from sejax.data.records import BadRecord
from tests.data.problems import random_png

PNG = random_png(5, 4)
TEXT = base64.b64encode(PNG).decode()
ODD = TEXT[: len(TEXT) // 4 * 4 - 7]  # one character more than whole bytes have


@pytest.fixture
def folder(tmp_path):
  """Returns a set's folder with files inside and a secret beside it."""
  folder = tmp_path / "set"
  (folder / "images").mkdir(parents=True)
  (folder / "images" / "a.png").write_bytes(b"inside")
  (folder / "~").mkdir()
  (folder / "~" / "a.png").write_bytes(b"tilde")
  (tmp_path / "set-2").mkdir()
  for name in ("secret.png", "set-2/a.png"):
    (tmp_path / name).write_bytes(b"secret")
  return folder


@pytest.mark.parametrize(
  "path",
  [
    "images/a.png",
    "./images//a.png",
    "images/../images/a.png",
    "absent/../images/a.png",
    "images\\a.png",
    ".\\images\\a.png",
    "{folder}/images/a.png",
    "{folder}/absent/../images/a.png",
    "/{folder}/images/a.png",
  ],
)
def test_names_inside_the_folder_are_read(folder, path):
  assert image_files.read(path.format(folder=folder), folder) == b"inside"


def test_a_tilde_is_a_name(folder):
  assert image_files.read("~/a.png", folder) == b"tilde"


@pytest.mark.parametrize(
  "path",
  [
    "..",
    "../secret.png",
    "images/../../secret.png",
    "../set-2/a.png",
    "..\\secret.png",
    "images\\..\\..\\secret.png",
    "images\\../..\\secret.png",
    "/etc/hostname",
    "{folder}/../secret.png",
    "{folder}-2/a.png",
    "C:\\secret.png",
    "c:/secret.png",
    "\\\\server\\share\\secret.png",
    "\\etc\\hostname",
  ],
)
def test_names_that_leave_the_folder_are_refused(folder, path):
  with pytest.raises(BadRecord, match="leads out of") as caught:
    image_files.read(path.format(folder=folder), folder)
  assert caught.value.kind == "path outside the folder"


def test_links_are_followed_wherever_they_lead(folder):
  """As in the hub's cache, whose snapshots link to blobs beside them."""
  blob = folder.parent / "blobs" / "0123abcd"
  blob.parent.mkdir()
  blob.write_bytes(b"blob")
  (folder / "images" / "b.png").symlink_to("../../blobs/0123abcd")
  (folder / "elsewhere").symlink_to(blob.parent)
  for path in ("images/b.png", "elsewhere/0123abcd", f"{folder}/images/b.png"):
    assert image_files.read(path, folder) == b"blob"
  with pytest.raises(BadRecord, match="leads out of"):
    image_files.read("elsewhere/../../secret.png", folder)


def test_the_folder_may_be_a_link_or_relative(folder, monkeypatch):
  link = folder.parent / "link"
  link.symlink_to(folder)
  for path in ("images/a.png", f"{link}/images/a.png", f"{folder}/images/a.png"):
    assert image_files.read(path, link) == b"inside"
  monkeypatch.chdir(folder.parent)
  relative = folder.relative_to(folder.parent)
  for path in ("images/a.png", f"{folder}/images/a.png"):
    assert image_files.read(path, relative) == b"inside"


def test_what_is_no_file_is_missing(folder):
  (folder / "loop").symlink_to(folder / "loop")
  (folder / "broken").symlink_to("nowhere")
  os.mkfifo(folder / "pipe")
  paths = ["images", ".", "loop", "broken", "pipe", "absent.png", "nul\0.png", "a" * 5000]
  for path in [*paths, "images/a.png\0/../../secret.png", "https://example.com/a.png"]:
    with pytest.raises(BadRecord) as caught:
      image_files.read(path, folder)
    assert caught.value.kind == "missing image", path
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
  "text",
  [
    f"data:image/png;base64,{TEXT}",
    f"DATA:image/png;BASE64,{TEXT}",
    f"data:;base64,{TEXT}",
    f'data:image/png;charset=utf-8;name="a.png";base64,{TEXT}',
    f"data:image/jpeg;base64,{TEXT}",  # as browsers, it is read by what it holds
    f"data:image/png;base64,{TEXT.rstrip('=')}",
    f"data:image/png;base64,{urllib.parse.quote(TEXT, safe='')}",
    f"data:image/png;base64,\r\n{base64.encodebytes(PNG).decode()}",
    f"data:image/png,{urllib.parse.quote_from_bytes(PNG)}",
    f" data:image/png;base64,{TEXT}\n",
    TEXT,
    f"\n{TEXT}\n",
    TEXT.rstrip("="),
    base64.encodebytes(PNG).decode(),
    base64.urlsafe_b64encode(PNG).decode(),
  ],
)
def test_data_uris_and_base64_are_read(folder, text):
  assert image_files.read(text, folder) == PNG


@pytest.mark.parametrize(
  "beginning",
  [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"RIFF\1\2\3\4WEBP",
    b"BM\1\2\3\4\0\0\0\0",
    b"II*\0",
    b"MM\0*",
    b"P6\n1 1\n255\n",
  ],
)
def test_base64_of_every_format_is_known(beginning):
  data = beginning + bytes(range(256))
  assert image_files.decode_inline(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
  "path",
  ["a.png", "iVBORw0KGgo.png", "images/abcdefghijklmnop", "/9j/4AAQSkZJRgABAQ.jpg", "9j4AAQ"],
)
def test_paths_are_no_base64(path):
  assert image_files.decode_inline(path) is None


@pytest.mark.parametrize(
  "text",
  [
    f"data:image/png;base64,{ODD}",
    f"data:image/png;base64,{TEXT[:40]}!{TEXT[40:]}",
    f"data:image/png;base64,é{TEXT}",
    ODD,
    f"data:image/png;base64,{'!' * 722_000}",
  ],
)
def test_broken_base64_is_named_and_not_printed(folder, text):
  with pytest.raises(BadRecord, match="is broken") as caught:
    image_files.read(text, folder)
  assert caught.value.kind == "bad image value"
  assert len(str(caught.value)) <= 300
