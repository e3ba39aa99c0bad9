"""The families of models, by the `model_type` of their `config.json`."""

import pathlib

from sejax.errors import quoted
from sejax.models.model import Model
from sejax.models.qwen2_5_vl import Qwen25VL
from sejax.models.tensor_files import parse_json

FAMILIES: dict[str, type[Model]] = {family.model_type: family for family in (Qwen25VL,)}


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
    known = ", ".join(f"{name} ({one.example})" for name, one in FAMILIES.items())
    raise ValueError(
      f"{file}: model_type is {quoted(raw.get('model_type'))}; the families are {known}"
    )
  try:
    return family.from_hf(raw)
  except ValueError as error:
    raise ValueError(f"{file}: {str(error).removeprefix('config.json: ')}") from None
