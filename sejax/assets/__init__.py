"""Files that come with the package."""

from sejax import storage

# A directory in the form of the released checkpoints; its README.md is the model card.
TINY_VLM = storage.Path(__file__).parent / "tiny_vlm"
