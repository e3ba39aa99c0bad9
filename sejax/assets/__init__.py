"""Files that come with the package."""

import pathlib

# A directory in the form of the released checkpoints; its README.md is the model card.
TINY_VLM = pathlib.Path(__file__).parent / "tiny_vlm"
