"""Loads directories that transformers wrote, and lets transformers load directories of ours."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from sejax import storage
from sejax.models import weights
from tests.models import torch_reference
from tests.subprocesses import environment

TIED = (False, True)


@functools.cache
def hf_model(tied: bool) -> transformers.Qwen2_5_VLForConditionalGeneration:
  return torch_reference.torch_model(torch_reference.tiny_config(tie_word_embeddings=tied))


@pytest.fixture
def directory(tmp_path) -> pathlib.Path:
  """An untied fp32 model in one file, saved by transformers."""
  hf_model(tied=False).save_pretrained(tmp_path / "hf")
  return tmp_path / "hf"


def hf_load(directory: pathlib.Path, model_type: str = "qwen2_5_vl"):
  _, model_class = torch_reference.CLASSES[model_type]
  return model_class.from_pretrained(directory, output_loading_info=True)


def read_tensors(directory: pathlib.Path) -> dict[str, torch.Tensor]:
  tensors = {}
  for file in sorted(directory.glob("*.safetensors")):
    tensors |= safetensors.torch.load_file(file)
  return tensors


def write_tensors(directory: pathlib.Path, tensors: dict[str, torch.Tensor]) -> None:
  metadata = {"format": "pt"}
  safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata=metadata)


def assert_same_bytes(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
  assert got.keys() == expected.keys()
  for name, tensor in expected.items():
    assert got[name].dtype == tensor.dtype, name
    assert got[name].shape == tensor.shape, name
    assert torch.equal(got[name].view(torch.uint8), tensor.view(torch.uint8)), name


def assert_same_tree(got, expected) -> None:
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_the_same_weights_are_the_same_bytes(tmp_path):
  """Although the safetensors package writes metadata in random order."""
  config = torch_reference.tiny_config()
  params = config.init(jax.random.key(0))
  files = set()
  for number in range(8):
    weights.save(params, config, tmp_path / str(number))
    files.add((tmp_path / str(number) / "model.safetensors").read_bytes())
  assert len(files) == 1


@pytest.mark.long
@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_file_bytes", [200_000, 10**9])
@pytest.mark.parametrize("model_type", torch_reference.CLASSES)
def test_round_trip(tmp_path, model_type, tied, dtype, max_file_bytes):
  """From transformers to sejax and back: the bytes are equal, and transformers can load them."""
  tiny = torch_reference.tiny_family(model_type, tie_word_embeddings=tied)
  original = torch_reference.torch_model(tiny).to(dtype)
  original.save_pretrained(tmp_path / "hf", max_shard_size=max_file_bytes)
  jax_dtype = jnp.dtype(str(dtype).removeprefix("torch."))
  config, params = weights.load(tmp_path / "hf", dtype=jax_dtype)
  assert config == tiny
  weights.save(params, config, tmp_path / "export", max_file_bytes=max_file_bytes)

  assert_same_bytes(read_tensors(tmp_path / "export"), read_tensors(tmp_path / "hf"))
  files = [file.stat().st_size for file in (tmp_path / "export").glob("*.safetensors")]
  assert (len(files) > 1) == (max_file_bytes == 200_000)
  assert max(files) < max_file_bytes + 10_000  # The header is not counted.

  exported, report = hf_load(tmp_path / "export", model_type)
  assert not any(report.values()), report
  assert exported.dtype == dtype
  ids = torch.arange(40).reshape(2, 20)
  with torch.no_grad():
    assert torch.equal(exported(ids).logits, hf_load(tmp_path / "hf", model_type)[0](ids).logits)


@pytest.mark.parametrize("tied", TIED)
def test_tree_equals_the_models_tensors(tmp_path, tied):
  model = hf_model(tied)
  model.save_pretrained(tmp_path / "hf")
  config, params = weights.load(tmp_path / "hf", dtype=jnp.float32)
  expected_config = torch_reference.tiny_config(tie_word_embeddings=tied)
  assert config == expected_config
  assert_same_tree(params, torch_reference.to_params(model.state_dict(), expected_config))


@pytest.mark.parametrize("model_type", torch_reference.CLASSES)
def test_names_of_another_form(model_type, tmp_path):
  """Files name modules as a transformers model does, or without what it has in front of them."""
  model = torch_reference.torch_model(torch_reference.tiny_family(model_type))
  model.save_pretrained(tmp_path)
  _, expected = weights.load(tmp_path, dtype=jnp.float32)
  live = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
  short = {
    name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor
    for name, tensor in live.items()
  }
  assert live.keys() & short.keys() == {"lm_head.weight"}
  for tensors in (live, short):
    write_tensors(tmp_path, tensors)
    assert_same_tree(weights.load(tmp_path, dtype=jnp.float32)[1], expected)


def test_flat_config(directory):
  """Published checkpoints have the decoder's fields at the top level, and `rope_scaling`."""
  expected, _ = weights.load(directory, dtype=jnp.float32)
  nested = json.loads((directory / "config.json").read_text())
  text = nested.pop("text_config")
  rope = text.pop("rope_parameters")
  flat = {
    **text,
    **nested,
    "rope_theta": rope["rope_theta"],
    "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
  }
  (directory / "config.json").write_text(json.dumps(flat))
  assert weights.load(directory, dtype=jnp.float32)[0] == expected


def test_redundant_tensors_are_ignored(tmp_path):
  """Rotary frequencies, which are computed, and a tied head that equals the embedding."""
  hf_model(tied=True).save_pretrained(tmp_path / "hf")
  _, expected = weights.load(tmp_path / "hf", dtype=jnp.float32)
  tensors = read_tensors(tmp_path / "hf")
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
  tensors["visual.rotary_pos_emb.inv_freq"] = torch.ones(4)
  write_tensors(tmp_path / "hf", tensors)
  assert_same_tree(weights.load(tmp_path / "hf", dtype=jnp.float32)[1], expected)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [jnp.float32, jnp.bfloat16])
def test_cast_as_torch_does(directory, stored, wanted):
  tensors = {name: tensor.to(stored) for name, tensor in read_tensors(directory).items()}
  write_tensors(directory, tensors)
  _, params = weights.load(directory, dtype=wanted)
  kernel = params["decoder"]["layers"]["gate"]["kernel"]
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(wanted)}
  torch_dtype = getattr(torch, jnp.dtype(wanted).name)
  expected = tensors["model.layers.1.mlp.gate_proj.weight"].to(torch_dtype).float().numpy().T
  np.testing.assert_array_equal(kernel[1].astype(jnp.float32), expected)


def change_tensors(change):
  """Returns a function that changes the tensors of a directory."""

  def apply(directory):
    tensors = read_tensors(directory)
    change(tensors)
    write_tensors(directory, tensors)

  return apply


def shorten(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])


def shorten_header(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes()[:500])


def break_offsets(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F16"', 1))


def lose_offsets(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes().replace(b"data_offsets", b"data_OFFSETS", 1))


def change_header(old: bytes, new: bytes):
  """Returns a function that replaces bytes of the header by others of the same number."""
  assert len(old) == len(new)

  def apply(directory):
    file = directory / "model.safetensors"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new, 1))

  return apply


def append(directory):
  file = directory / "model.safetensors"
  file.write_bytes(file.read_bytes() + b"more")


def index_file(content):
  def apply(directory):
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))

  return apply


def index(**weight_map):
  def apply(directory):
    content = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(content)

  return apply


def repeat(directory):
  shutil.copy(directory / "model.safetensors", directory / "again.safetensors")
  index(a="model.safetensors", b="again.safetensors")(directory)


def change_config(**changes):
  def apply(directory):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

  return apply


GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.mark.parametrize(
  ("damage", "error"),
  [
    (change_tensors(lambda t: t.pop(GATE)), rf"tensor {GATE} is missing from .*hf"),
    (
      change_tensors(lambda t: [t.pop(n) for n in list(t) if n.startswith("visual.blocks")]),
      r"tensor visual\.blocks\.0\S+ is missing from .*hf, and so are 47 others",
    ),
    (
      change_tensors(lambda t: t.update({"model.layers.3.mlp.up_proj.weight": t[GATE].clone()})),
      r"model\.layers\.3\.mlp\.up_proj\.weight in .*model\.safetensors belongs to no",
    ),
    (
      change_tensors(lambda t: t.update({GATE: t[GATE].T.contiguous()})),
      rf"{GATE} in .*model\.safetensors has shape \(64, 96\); config.json asks for \(96, 64\)",
    ),
    (
      change_tensors(lambda t: t.update({GATE: t[GATE].to(torch.int8)})),
      rf"{GATE} in .*model\.safetensors has type I8; it must be one of",
    ),
    (
      change_tensors(lambda t: t.update({"model.language_model.norm.weight": torch.ones(64)})),
      r"model\.language_model\.norm\.weight in .* and model\.norm\.weight in .* are the same",
    ),
    (shorten, r"model\.safetensors is truncated: .* tensor \S+\.weight ends at byte \d+"),
    (shorten_header, r"model\.safetensors has no whole safetensors header in its 500 bytes"),
    (break_offsets, r"tensor \S+ in .*model\.safetensors has type F16 and shape \S+ .*bytes 0 to"),
    (lose_offsets, r"model\.safetensors has no type, shape or offsets for tensor \S+"),
    (change_header(b'"shape":[', b'"shape":{'), r"is not valid JSON"),
    (change_header(b"[96,64]", b'["9",6]'), r"shape \('9', 6\) or offsets amiss for tensor"),
    (append, r"model\.safetensors has \d+ bytes, but its last tensor ends at byte \d+"),
    (index_file({"weight_map": ["a"]}), r"must hold a weight_map from tensors to files"),
    (index_file({"weight_map": {"a": 1}}), r"must hold a weight_map from tensors to files"),
    (index_file([]), r"index\.json must hold a JSON object"),
    (index(ghost="model.safetensors"), r"tensor ghost is missing from .*model\.safetensors, where"),
    (lambda d: (d / "model.safetensors").unlink(), "hf has neither model.safetensors nor"),
    (lambda d: (d / "model.safetensors").write_bytes(b""), "no whole safetensors header"),
    (index(a="model-1.safetensors"), r"names model-1\.safetensors, which .*hf does not have"),
    (index(a="../model.safetensors"), "must be files of the directory itself"),
    (repeat, r"tensor \S+ is both in .*again\.safetensors and in .*model\.safetensors"),
    (lambda d: (d / "config.json").unlink(), "hf has no config.json"),
    (lambda d: (d / "config.json").write_text("{"), r"config\.json is not valid JSON"),
    (lambda d: (d / "config.json").write_text("[]"), r"config\.json must hold a JSON object"),
    (change_config(tie_word_embeddings=True, model_type="llama"), "model_type is 'llama'"),
  ],
)
def test_damaged_directory(directory, damage, error):
  damage(directory)
  with pytest.raises(ValueError, match=error):
    weights.load(directory, dtype=jnp.float32)


def test_a_tied_model_with_another_head_is_refused(tmp_path):
  hf_model(tied=True).save_pretrained(tmp_path / "hf")
  tensors = read_tensors(tmp_path / "hf")
  for head in (tensors["model.embed_tokens.weight"] + 1, torch.ones(3, 3)):
    write_tensors(tmp_path / "hf", {**tensors, "lm_head.weight": head.contiguous()})
    with pytest.raises(ValueError, match=r"lm_head\.weight in .* is not the embedding"):
      weights.load(tmp_path / "hf", dtype=jnp.float32)


def test_a_mesh_of_explicit_axes_is_refused(directory):
  mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Explicit,))
  with pytest.raises(ValueError, match=r"build it with jax\.sharding\.Mesh"):
    weights.load(directory, mesh)


@pytest.mark.long
def test_sharded_over_eight_devices(directory):
  """Arrays are equal, and the host holds one shard at a time and reads no part twice."""
  script = pathlib.Path(__file__).with_name("load_sharded.py")
  subprocess.run(
    [sys.executable, script, directory],
    check=True,
    env=environment(devices=8) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )


@pytest.fixture
def loaded(directory):
  return weights.load(directory, dtype=jnp.float32)


def test_save_copies_the_processor(directory, loaded, tmp_path):
  config, params = loaded
  contents = {"tokenizer.json": "{}", "chat_template.jinja": "x", "merges.txt": "a b"}
  for name, content in {**contents, "notes.txt": "private"}.items():
    (directory / name).write_text(content)
  weights.save(params, config, tmp_path / "deep" / "export", source=directory)
  written = {file.name: file for file in (tmp_path / "deep" / "export").iterdir()}
  expected = {*contents, "generation_config.json", "config.json", "model.safetensors"}
  assert written.keys() == expected
  assert all(written[name].read_text() == content for name, content in contents.items())
  assert [file.name for file in (tmp_path / "deep").iterdir()] == ["export"]


def test_save_replaces_only_an_earlier_export(directory, loaded, tmp_path):
  config, params = loaded
  target = tmp_path / "export"
  target.mkdir()
  weights.save(params, config, target, max_file_bytes=200_000)
  params["decoder"]["final_norm"]["scale"] += 1
  weights.save(params, config, target)
  assert {file.name for file in target.iterdir()} == {"config.json", "model.safetensors"}
  assert_same_tree(weights.load(target, dtype=jnp.float32)[1], params)

  before = (directory / "model.safetensors").read_bytes()
  (target / "notes.txt").write_text("mine")
  for foreign in (directory, target, directory / "config.json"):
    with pytest.raises(ValueError, match="exists and is not an earlier export"):
      weights.save(params, config, foreign)
  assert (directory / "model.safetensors").read_bytes() == before


def test_failed_save_leaves_the_earlier_export(loaded, tmp_path, monkeypatch):
  config, params = loaded
  weights.save(params, config, tmp_path / "export")
  before = {file.name: file.read_bytes() for file in (tmp_path / "export").iterdir()}

  def disk_full(*_, **__):
    raise OSError("No space left on device")

  monkeypatch.setattr("safetensors.numpy.save_file", disk_full)
  with pytest.raises(OSError, match="No space left"):
    weights.save(params, config, tmp_path / "export")
  assert {file.name: file.read_bytes() for file in (tmp_path / "export").iterdir()} == before
  assert not list(tmp_path.glob(".*"))


def test_an_export_into_a_bucket_is_repeated_after_an_interruption(
  directory, loaded, bucket, monkeypatch
):
  """Wherever it is interrupted: what is left is known as an export, and has no config.json."""
  config, params = loaded
  (directory / "tokenizer.json").write_text("{}")
  target, uploaded, stop, upload = bucket / "export", [], [None], storage.upload

  def interruptible(file, path):
    if len(uploaded) == stop[0]:
      raise KeyboardInterrupt
    upload(file, path)
    uploaded.append(path.name)

  def export():
    uploaded.clear()
    weights.save(params, config, target, source=directory, max_file_bytes=600_000)

  monkeypatch.setattr(storage, "upload", interruptible)
  export()
  names, contents = [*uploaded], {file.name: file.read_bytes() for file in target.iterdir()}
  shards = [name for name in names if name.endswith(".safetensors")]
  index = "model.safetensors.index.json"
  assert len(shards) > 1
  assert names == [*shards, index, "generation_config.json", "tokenizer.json", "config.json"]
  for count in range(len(names)):
    stop[0] = count
    with pytest.raises(KeyboardInterrupt):
      export()
    assert {file.name for file in storage.glob(target, "*")} == {*names[:count]}
    stop[0] = None
    export()
    assert {file.name: file.read_bytes() for file in target.iterdir()} == contents


@pytest.mark.parametrize(
  ("names", "replaced"),
  [
    (["model.safetensors.index.json"], True),
    (["tokenizer.json", "vocab.json"], True),
    (["tokenizer.json", "notes.txt"], False),
    (["tokenizer.json", "config.json"], False),
  ],
)
def test_only_a_rest_of_an_export_in_a_bucket_is_replaced(
  loaded, bucket, tmp_path, names, replaced
):
  config, params = loaded
  for folder in (bucket / "export", storage.Path(tmp_path / "export")):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
      (folder / name).write_text("{}")
    if replaced and storage.is_remote(folder):
      weights.save(params, config, folder)
      left = {"config.json", "model.safetensors"}
    else:  # On a disk an export appears whole, so that one without weights is another's.
      with pytest.raises(ValueError, match="exists and is not an earlier export"):
        weights.save(params, config, folder)
      left = {*names}
    assert {file.name for file in folder.iterdir()} == left


def test_save_refuses_another_configuration(loaded, tmp_path):
  config, params = loaded
  tied = torch_reference.tiny_config(tie_word_embeddings=True)
  with pytest.raises(ValueError, match="has lm_head/kernel, which the configuration does not"):
    weights.save(params, tied, tmp_path / "export")
  params["vision"]["merger"]["norm"]["scale"] = jnp.ones(7)
  with pytest.raises(ValueError, match=r"vision/merger/norm/scale has shape \(7,\)"):
    weights.save(params, config, tmp_path / "export")
  del params["lm_head"]
  with pytest.raises(ValueError, match="lacks lm_head/kernel"):
    weights.save(params, config, tmp_path / "export")
