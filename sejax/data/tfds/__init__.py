"""Training sets as tensorflow-datasets, built and read without tensorflow."""

from sejax.data.tfds.builders import BUILDERS, Geometry3k, Geoqa, Mmr1, build
from sejax.data.tfds.source import TfdsSource

__all__ = ["BUILDERS", "Geometry3k", "Geoqa", "Mmr1", "TfdsSource", "build"]
