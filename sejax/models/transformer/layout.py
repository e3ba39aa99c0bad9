"""Sharding rules for the parameter tree, see `sejax.parallel.layouts` for their format."""

from sejax.parallel.layouts import Rules

# In training, parameters are sharded over `tensor` and `fsdp`; each layer gathers its own over
# `fsdp` before use.
TRAINING: Rules = (
  (r"embed/embedding$", ("tensor", "fsdp")),
  (r"lm_head/kernel$", ("fsdp", "tensor")),
  (r"qkv/kernel$", ("fsdp", None, "tensor")),
  (r"(patch_embed|q|k|v|gate|up|fc1)/kernel$", ("fsdp", "tensor")),
  (r"(o|proj|down|fc2)/kernel$", ("tensor", "fsdp")),
  (r"qkv/bias$", (None, "tensor")),
  (r"(q|k|v|gate|up|fc1)/bias$", ("tensor",)),
  (r"(q|k|v|gate|up)/lora_a$", ("fsdp", None)),
  (r"(q|k|v|gate|up)/lora_b$", (None, "tensor")),
  (r"(o|down)/lora_a$", ("tensor", None)),
  (r"(o|down)/lora_b$", (None, "fsdp")),
)

# In decoding, parameters are sharded over `tensor` only, so that no decode step gathers weights.
DECODING: Rules = tuple(
  (pattern, tuple(axis if axis == "tensor" else None for axis in spec))
  for pattern, spec in TRAINING
)
