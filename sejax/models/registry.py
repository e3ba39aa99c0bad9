"""Registry of model families, keyed by the `model_type` in `config.json`."""

import os

from sejax import storage
from sejax.errors import quoted
from sejax.models.model import Model
from sejax.models.qwen2_5_vl import Qwen25VL
from sejax.models.qwen2_vl import Qwen2VL
from sejax.models.qwen3_vl import Qwen3VL
from sejax.models.tensor_files import parse_json

FAMILIES: dict[str, type[Model]] = {
  family.model_type: family for family in (Qwen2VL, Qwen25VL, Qwen3VL)
}


def released(name: str) -> Model | None:
  """Returns the configuration of a released model by its hub name; None if the name is unknown.

  Args:
    name: such as `Qwen/Qwen2.5-VL-7B-Instruct`; the case does not matter, and the organisation may
      be left out.
  """
  wanted = name.rpartition("/")[2].lower()
  for family in FAMILIES.values():
    for size, released_name in family.released_names.items():
      if released_name.rpartition("/")[2].lower() == wanted:
        return family.released(size)
  return None


def load_config(directory: str | os.PathLike) -> Model:
  """Reads the `config.json` of a model directory.

  Raises:
    ValueError: the file is missing, its `model_type` is not registered, or a field cannot work.
  """
  file = storage.Path(directory) / "config.json"
  if not file.exists():
    raise ValueError(f"{directory} has no config.json; give a model directory as published")
  raw = parse_json(file.read_bytes(), file)
  family = FAMILIES.get(raw.get("model_type"))
  if family is None:
    examples = {name: next(iter(one.released_names.values())) for name, one in FAMILIES.items()}
    known = ", ".join(f"{name} ({example})" for name, example in examples.items())
    raise ValueError(
      f"{file}: model_type is {quoted(raw.get('model_type'))}; the families are {known}"
    )
  try:
    return family.from_hf(raw)
  except ValueError as error:
    raise ValueError(f"{file}: {str(error).removeprefix('config.json: ')}") from None
