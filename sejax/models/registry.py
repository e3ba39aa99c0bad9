"""The families of models, by the `model_type` of their `config.json`."""

import pathlib

from sejax.errors import quoted
from sejax.models.model import Model
from sejax.models.qwen2_5_vl import Qwen25VL
from sejax.models.tensor_files import parse_json

FAMILIES: dict[str, type[Model]] = {family.model_type: family for family in (Qwen25VL,)}


def released(name: str) -> Model | None:
  """Returns a released model by its name on the hub; None where no family has released it.

  Args:
    name: such as `Qwen/Qwen2.5-VL-7B-Instruct`, in any case, with or without the organisation.
  """
  wanted = name.rpartition("/")[2].lower()
  for family in FAMILIES.values():
    for size, released_name in family.released_names.items():
      if released_name.rpartition("/")[2].lower() == wanted:
        return family.released(size)
  return None


def load_config(directory: str | pathlib.Path) -> Model:
  """Reads the configuration of a model directory.

  Raises:
    ValueError: there is none, it is of a family that is not known, or a field cannot work.
  """
  file = pathlib.Path(directory) / "config.json"
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
