"""tensorflow-datasets builders that convert training sets from the Hugging Face hub."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging

from sejax import storage
from sejax.data import parquet
from sejax.data.records import BadRecord
from sejax.errors import quoted

ON_BAD_RECORD = ("stop", "skip")


class _HubBuilder(tfds.core.GeneratorBasedBuilder):
  """Builds a data set from a downloaded hub repository, which tfds calls `manual_dir`.

  Records keep the order and the ids that `parquet.ParquetSource` gives them.
  """

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "As published on the hub."}

  # Keeps tfds from looking for checksums of downloads. There are none, and it would need
  # importlib_resources, which tfds does not list as a requirement.
  code_path: ClassVar[None] = None

  REPOSITORY: ClassVar[str]
  DESCRIPTION: ClassVar[str]
  LICENSE: ClassVar[str]
  CITATION: ClassVar[str]
  # Rows of each split as released; empty if no exact number was published.
  COUNTS: ClassVar[Mapping[str, int]]

  def __init__(self, *, any_counts: bool = False, on_bad_record: str = "stop", **kwargs: Any):
    """Creates a builder.

    Args:
      any_counts: accept splits whose sizes differ from the released ones.
      on_bad_record: "stop" at a record that cannot be read, or "skip" it with a warning.
      **kwargs: arguments of `tfds.core.DatasetBuilder`, such as `data_dir`.
    """
    if on_bad_record not in ON_BAD_RECORD:
      raise ValueError(
        f"on_bad_record={quoted(on_bad_record)} must be one of {', '.join(ON_BAD_RECORD)}"
      )
    self._any_counts, self._on_bad_record = any_counts, on_bad_record
    super().__init__(file_format="array_record", **kwargs)

  @property
  def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:  # noqa: N802 (tfds' name)
    """Instructions that tfds shows if the downloaded files are missing."""
    return f"Download the dataset repository {self.REPOSITORY} from the Hugging Face hub."

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      # Images are stored as Text, which accepts any bytes: tfds must not decode and re-encode them.
      features=tfds.features.FeaturesDict(
        {
          "id": text(),
          "question": text(),
          "images": tfds.features.Sequence(text()),
          "answer": text(),
        }
      ),
      homepage=f"https://huggingface.co/datasets/{self.REPOSITORY}",
      license=self.LICENSE,
      citation=self.CITATION,
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    folder = storage.Path(dl_manager.manual_dir)
    splits = {
      split: parquet.ParquetSource.open(folder, split=split, name=self.name)
      for split in sorted(parquet.split_files(folder))
      if "/" not in split  # the sets have no subsets
    }
    counts = {split: len(source) for split, source in splits.items()}
    if self.COUNTS and counts != self.COUNTS and not self._any_counts:
      raise ValueError(
        f"{folder} holds {_listed(counts)} rows; {self.name} was released with"
        f" {_listed(self.COUNTS)}; any_counts (--any_counts) builds it all the same"
      )
    return {split: self._generate_examples(source) for split, source in splits.items()}

  def _generate_examples(
    self, source: parquet.ParquetSource
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    skipped = collections.Counter()
    for index in range(len(source)):
      try:
        record = source[index]
      except BadRecord as error:
        self._raise_or_warn("a record", error)
        skipped[error.kind] += 1
        continue
      try:
        answer = source.gold(index)
      except BadRecord as error:  # the record is kept: training does not need its answer
        self._raise_or_warn("an answer", error)
        skipped[error.kind] += 1
        answer = None
      yield (
        index,
        {
          "id": record.id,
          "question": record.question,
          "images": list(record.images),
          "answer": answer or "",
        },
      )
    if skipped:
      logging.warning("%s: skipped in all %s", self.name, _listed(skipped))

  def _raise_or_warn(self, what: str, error: BadRecord) -> None:
    if self._on_bad_record == "stop":
      raise error
    logging.warning("%s: skipped %s: %s", self.name, what, error)


class Geometry3k(_HubBuilder):
  """Geometry3K: high-school plane geometry, a diagram per problem."""

  REPOSITORY = "hiyouga/geometry3k"
  DESCRIPTION = "Plane geometry problems with a diagram each and the text of the right choice."
  LICENSE = "MIT"
  COUNTS: ClassVar[Mapping[str, int]] = {"train": 2101, "validation": 300, "test": 601}
  CITATION = """@inproceedings{lu2021intergps,
  title = {Inter-GPS: Interpretable Geometry Problem Solving with Formal Language and Symbolic
           Reasoning},
  author = {Lu, Pan and Gong, Ran and Jiang, Shibiao and Qiu, Liang and Huang, Siyuan and
            Liang, Xiaodan and Zhu, Song-Chun},
  booktitle = {Proceedings of ACL-IJCNLP},
  year = {2021}
}"""


class Geoqa(_HubBuilder):
  """GeoQA as selected by R1-V: geometry problems from Chinese middle schools, in English."""

  REPOSITORY = "leonardPKU/GEOQA_R1V_Train_8K"
  DESCRIPTION = "About 8,000 geometry problems with a diagram each and a short answer."
  LICENSE = "Listed as Apache-2.0; the GeoQA source itself states none."
  COUNTS: ClassVar[Mapping[str, int]] = {}
  CITATION = """@inproceedings{chen2021geoqa,
  title = {{GeoQA}: A Geometric Question Answering Benchmark Towards Multimodal Numerical
           Reasoning},
  author = {Chen, Jiaqi and Tang, Jianheng and Qin, Jinghui and Liang, Xiaodan and Liu, Lingbo and
            Xing, Eric P. and Lin, Liang},
  booktitle = {Findings of ACL-IJCNLP},
  year = {2021}
}"""


class Mmr1(_HubBuilder):
  """MMR1-Math: mathematical problems with images, chosen for reinforcement learning."""

  REPOSITORY = "MMR1/MMR1-Math-RL-Data-v0"
  DESCRIPTION = "Mathematical problems with pictures and a short answer."
  LICENSE = "None stated."
  COUNTS: ClassVar[Mapping[str, int]] = {"train": 5782, "validation": 1451}
  CITATION = """@article{leng2025mmr1,
  title = {{MMR1}: Enhancing Multimodal Reasoning with Variance-Aware Sampling and Open Resources},
  author = {Leng, Sicong and others},
  journal = {arXiv:2509.21268},
  year = {2025}
}"""


BUILDERS = {builder.name: builder for builder in (Geometry3k, Geoqa, Mmr1)}


def build(
  name: str,
  source: storage.Path,
  data_dir: storage.Path,
  *,
  any_counts: bool = False,
  on_bad_record: str = "stop",
) -> tfds.core.DatasetInfo:
  """Builds a data set as array records.

  Args:
    name: one of `BUILDERS`.
    source: directory of the downloaded hub repository.
    data_dir: directory of all built data sets.
    any_counts: accept splits whose sizes differ from the released ones.
    on_bad_record: "stop" at a record that cannot be read, or "skip" it with a warning.

  Returns:
    Information about the data set, such as the number of examples of each split.

  Raises:
    ValueError: the data set is already built, or `source` is not the released one.
  """
  builder = BUILDERS[name](data_dir=data_dir, any_counts=any_counts, on_bad_record=on_bad_record)
  if builder.data_path.exists():
    raise ValueError(f"{builder.data_path} is there already; remove it to build {name} anew")
  if not source.is_dir():
    raise ValueError(f"{source} is not a directory; {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}")
  config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
  builder.download_and_prepare(download_config=config)
  return builder.info


def _listed(counts: Mapping[str, int]) -> str:
  return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
