"""Layout of the parameter tree on a mesh, see `sejax.parallel.layouts` for what the rules mean."""

from sejax.parallel.layouts import Rules

# For training: split over `tensor`, and over `fsdp`, where they are gathered for their layer.
TRAINING: Rules = (
  (r"embed/embedding$", ("tensor", "fsdp")),
  (r"lm_head/kernel$", ("fsdp", "tensor")),
  (r"(patch_embed|q|k|v|qkv|gate|up|fc1)/kernel$", ("fsdp", "tensor")),
  (r"(o|proj|down|fc2)/kernel$", ("tensor", "fsdp")),
  (r"(q|k|v|qkv|gate|up|fc1)/bias$", ("tensor",)),
  (r"(q|k|v|gate|up)/lora_a$", ("fsdp", None)),
  (r"(q|k|v|gate|up)/lora_b$", (None, "tensor")),
  (r"(o|down)/lora_a$", ("tensor", None)),
  (r"(o|down)/lora_b$", (None, "fsdp")),
)

# For decoding: split over `tensor` only, so that no token waits for weights to be gathered.
DECODING: Rules = tuple(
  (pattern, tuple(axis if axis == "tensor" else None for axis in spec))
  for pattern, spec in TRAINING
)
