r"""Self-evolution of Qwen2-VL on Geometry3K, with the values of the released run of Qwen2.5-VL.

python -m sejax.main --config=configs/geometry3k_qwen2_vl.py:7b --workdir=DIR \
  --config.data.path=DIRECTORY_OF_PARQUET_FILES

The data is hiyouga/geometry3k as downloaded from the hub. The size after the colon is 2b, 7b or
72b, optionally followed by a comma and a baseline, as in
`--config=configs/geometry3k_qwen2_vl.py:7b,majority`; see `sejax.config.presets.apply`.
"""

from sejax.config import presets

# Devices over which heads and hidden units are split.
_TENSOR = {"2b": 1, "7b": 1, "72b": 8}


def get_config(argument="7b"):
  """Returns the configuration."""
  size, variant = presets.choose_size(argument, _TENSOR)
  model = f"Qwen/Qwen2-VL-{size.upper()}-Instruct"
  config = presets.released(model, variant, tensor=_TENSOR[size])
  config.data.source = "parquet"
  config.data.name = "geometry3k"
  config.data.min_pixels = None  # The range of pixels is that of the model's directory.
  config.data.max_pixels = None
  config.data.patch_buckets = (512, 1024, 1536, 2048, 3072, 4096)
  config.eval.num_problems = 601
  return config
