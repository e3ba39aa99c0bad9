"""Twenty faults, each of which a careful reader might miss, in twenty places."""

from typing import NamedTuple


class Fault(NamedTuple):
  """A line that is changed for the worse.

  Attributes:
    file: the file, below `sejax/`.
    right: the text as it is; occurs once in the file.
    wrong: what takes its place.
    what: what goes wrong.
    tests: files of tests that are tried first, as they are most likely to see it.
  """

  file: str
  right: str
  wrong: str
  what: str
  tests: tuple[str, ...]


FAULTS = (
  Fault(
    "method/consistency.py",
    "count / G > threshold)",
    "count / G >= threshold)",
    "a majority of exactly the threshold takes all",
    ("tests/method/test_consistency.py",),
  ),
  Fault(
    "method/modulation.py",
    "sigmoid((t_l - scores) / tau_l)",
    "sigmoid((scores - t_l) / tau_l)",
    "high scores of the Judge lower a reward",
    ("tests/method/test_modulation.py",),
  ),
  Fault(
    "method/advantages.py",
    "return centered / (_std(x) + _STD_EPSILON)",
    "return centered / _std(x)",
    "groups whose rewards are all alike have advantages that are not numbers",
    ("tests/method/test_advantages.py",),
  ),
  Fault(
    "method/objectives/ratio_clip.py",
    "jnp.maximum(unclipped, clipped)",
    "jnp.minimum(unclipped, clipped)",
    "the clipped loss is the optimistic one",
    ("tests/method/test_policy_loss.py",),
  ),
  Fault(
    "rewards/reading.py",
    "[score for score in scores if score is not None and not math.isnan(score)]",
    "[score for score in scores if score is not None]",
    "a verdict that says NaN is a score",
    ("tests/method/test_golden.py", "tests/rewards"),
  ),
  Fault(
    "text/verdicts.py",
    "return value if value is not None and 0.0 <= value <= 1.0 else None",
    "return value",
    "a verdict of 8 out of 10 is a score of 8",
    ("tests/text/test_verdicts.py",),
  ),
  Fault(
    "text/equivalence.py",
    "_ABSOLUTE_TOLERANCE, _RELATIVE_TOLERANCE = 1e-5, 1e-9",
    "_ABSOLUTE_TOLERANCE, _RELATIVE_TOLERANCE = 1e-1, 1e-1",
    "numbers that are one tenth apart go to the slow grader",
    ("tests/text/test_equivalence.py",),
  ),
  Fault(
    "models/transformer/generation.py",
    "return jnp.where(real, prompt.positions, -1).max(axis=(0, 2)) + 1",
    "return prompt.lengths",
    "continuations begin at the number of tokens, and not after the largest position",
    ("tests/models/test_qwen_rope.py", "tests/models/test_families.py", "tests/sampling"),
  ),
  Fault(
    "models/transformer/paged_attention.py",
    "jnp.arange(scores.shape[-1]) < lengths",
    "jnp.arange(scores.shape[-1]) <= lengths",
    "decoding sees one key too many",
    ("tests/models/test_paged_attention.py", "tests/sampling/test_sampler.py"),
  ),
  Fault(
    "models/lora.py",
    "scale = options.alpha / options.rank",
    "scale = options.alpha / options.rank**0.5",
    "adapters are applied more strongly than PEFT applies them",
    ("tests/models/test_lora.py",),
  ),
  Fault(
    "models/processor.py",
    "return np.array(sorted(banned - set(self.eos_ids)), np.int32)",
    "return np.array(sorted(banned), np.int32)",
    "the tokens that end a response are never sampled",
    ("tests/models/test_processor.py", "tests/models/test_families_processor.py"),
  ),
  Fault(
    "sampling/filters.py",
    "scaled = logits / (filters.temperature or 1.0)",
    "scaled = logits * (filters.temperature or 1.0)",
    "a high temperature sharpens the distribution",
    ("tests/sampling/test_filters.py",),
  ),
  Fault(
    "sampling/keys.py",
    "for part in (record[0], record[1], trajectory, repeat):",
    "for part in (record[0], record[1], trajectory):",
    "all verdicts on a trajectory are drawn with the same bits",
    ("tests/sampling/test_keys.py", "tests/sampling/test_sampler.py"),
  ),
  Fault(
    "learner/update.py",
    "self._temperature, self._block = temperature or 1.0, block",
    "self._temperature, self._block = 1.0, block",
    "the trainer's log-probs ignore the temperature",
    ("tests/learner/test_update.py",),
  ),
  Fault(
    "learner/checkpoints.py",
    "  if progress.fingerprint != fingerprint:",
    "  if progress.fingerprint is None:",
    "a run resumes with another frozen Judge",
    ("tests/learner/test_checkpoints.py",),
  ),
  Fault(
    "data/pipeline.py",
    'self._position, self.seen = state["turn"], state["seen"]',
    'self._position, self.seen = state["turn"] + 1, state["seen"]',
    "a run that resumes skips a record",
    ("tests/data/test_pipeline.py",),
  ),
  Fault(
    "data/images.py",
    "    PIL.ImageOps.exif_transpose(image, in_place=True)",
    "    pass",
    "photos are read lying on their side",
    ("tests/data/test_images.py",),
  ),
  Fault(
    "data/image_files.py",
    'os.path.normpath(names).split("/")[0] == ".."',
    'names.split("/")[0] == ".."',
    "a path in a data set leads out of its folder",
    ("tests/data/test_image_files.py",),
  ),
  Fault(
    "monitoring/writers.py",
    "      _truncate_after(file, step)",
    "      _truncate_after(file, step + 1)",
    "after a kill, a step has two lines of metrics",
    ("tests/monitoring/test_writers.py",),
  ),
  Fault(
    "evaluation/metrics.py",
    "error = each.std(ddof=1)",
    "error = each.std()",
    "standard errors of few problems are too small",
    ("tests/evaluation/test_metrics.py",),
  ),
)
