"""What a call of the sampler returns, and the host buffer that collects it."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int, Int8, Int32

from sejax.sampling.certainty import Certainty
from sejax.sampling.decode import SampledTokens


class Finish(enum.IntEnum):
  """Why a sequence ended."""

  EOS = 0
  STOP_STRING = 1
  LENGTH = 2


class Stats(NamedTuple):
  """Cost of one call of the sampler.

  Attributes:
    programs: programs that this call compiled.
    steps: decode steps, each of one token for every active sequence.
    row_steps: sequences computed, summed over decode steps and all processes; includes rows without
      an active sequence.
    evicted: times that a sequence had to wait again, since the KV cache was full.
    seconds: wall-clock time by stage: layout, read, decode, write and compile. Of the others only
      layout, which is compiled once, includes its compilation.
  """

  programs: int
  steps: int
  row_steps: int
  evicted: int
  seconds: dict[str, float]


class Progress(NamedTuple):
  """What a call of the sampler has sampled so far, of this process's prompts.

  Attributes:
    tokens: as in `Result`, but what follows a stop string is still there.
    lengths: number of sampled tokens.
    complete: prompts whose sequences have all ended.
    truncated: of these, sequences that reached their limit before they ended.
  """

  tokens: Int32[np.ndarray, "B G R"]
  lengths: Int32[np.ndarray, "B G"]
  complete: Bool[np.ndarray, " B"]
  truncated: Bool[np.ndarray, "B G"]


# Callback that is told of the progress.
Watch = Callable[[Progress], None]


class Result(NamedTuple):
  """Sampled sequences of this process's prompts, G of each.

  Attributes:
    tokens: sampled tokens, the ending EOS token included, then padding.
    lengths: number of sampled tokens.
    logp: log-prob of each token in nats, with temperature and banned ids but before the other
      filters; 0 at padding.
    behaviour_logp: log-prob of each token in nats under the filtered distribution that it was drawn
      from; 0 at padding.
    finish: a `Finish` value for each sequence.
    stats: cost of the call.
    certainty: means over the tokens of each sequence, 0 without tokens; None if not measured.
    watched_logp: log-probs of the watched tokens in the place of each token, in nats; None without
      any.
  """

  tokens: Int32[np.ndarray, "B G R"]
  lengths: Int32[np.ndarray, "B G"]
  logp: Float32[np.ndarray, "B G R"]
  behaviour_logp: Float32[np.ndarray, "B G R"]
  finish: Int8[np.ndarray, "B G"]
  stats: Stats
  certainty: Certainty | None = None
  watched_logp: Float32[np.ndarray, "B G R W"] | None = None

  @property
  def mask(self) -> Bool[np.ndarray, "B G R"]:
    """True for sampled tokens, false for padding."""
    return np.arange(self.tokens.shape[-1]) < self.lengths[..., None]

  @property
  def truncated(self) -> Bool[np.ndarray, "B G"]:
    """True for sequences that reached their limit before they ended."""
    return self.finish == Finish.LENGTH


class StopStrings(NamedTuple):
  """Strings that end a sequence, at the token that completes one of them.

  Attributes:
    strings: any of them ends a sequence.
    decode: converts token ids to text.
  """

  strings: tuple[str, ...]
  decode: Callable[[Sequence[int]], str]

  def find(self, tokens: Int[np.ndarray, " n"], start: int) -> int | None:
    """Returns the length of the shortest prefix that contains a string; None if there is none.

    Args:
      tokens: all tokens of a sequence so far.
      start: length of a prefix that is known to contain none.
    """
    if not self._contains_stop_string(tokens):
      return None
    return next(
      n for n in range(start + 1, len(tokens) + 1) if self._contains_stop_string(tokens[:n])
    )

  def _contains_stop_string(self, tokens: Int[np.ndarray, " n"]) -> bool:
    text = self.decode(tokens.tolist())
    return any(string in text for string in self.strings)


class OutputBuffer:
  """Host arrays that collect the tokens of this process's prompts over all decode runs."""

  def __init__(
    self,
    prompts: int,
    members: int,
    max_new_tokens: int,
    *,
    pad_id: int,
    shards: Sequence[int],
    certainty: bool = False,
    watched: int = 0,
  ):
    """Allocates the arrays.

    Args:
      prompts: prompts of this process, B.
      members: sequences of each prompt, G.
      max_new_tokens: maximum number of tokens to sample for a sequence, R.
      shards: indices of this process's row shards.
      certainty: whether it is measured.
      watched: number of watched tokens.
    """
    shape = (prompts, members, max_new_tokens)
    self.tokens = np.full(shape, pad_id, np.int32)
    self.lengths = np.zeros(shape[:2], np.int32)
    self.logp = np.zeros(shape, np.float32)
    self.behaviour_logp = np.zeros(shape, np.float32)
    self.certainty = Certainty(*np.zeros((2, *shape), np.float32)) if certainty else None
    self.watched_logp = np.zeros((*shape, watched), np.float32) if watched else None
    self.stopped = np.zeros(shape[:2], bool)
    self._shards = list(shards)

  def add(
    self,
    running: list[list[int]],
    before: list[Int[np.ndarray, " r"]],
    after: list[Int[np.ndarray, " r"]],
    sampled: SampledTokens,
    stop: StopStrings | None,
  ) -> Bool[np.ndarray, "N R"]:
    """Adds the tokens of a decode run.

    Args:
      running: for each shard of all processes, the sequences of its rows.
      before: tokens that each of these had sampled before the decode run.
      after: those after it.
      sampled: numpy arrays `[n*R,C]` of C decode steps, from this process's n shards.
      stop: strings that end a sequence.

    Returns:
      The rows of this process that a stop string ended.
    """
    # [n,R,C]
    new = jax.tree.map(lambda x: x.reshape(len(self._shards), -1, *x.shape[1:]), sampled)
    outs = SampledTokens(
      self.tokens, self.logp, self.behaviour_logp, self.certainty, self.watched_logp
    )
    stopped = np.zeros((len(running), new.tokens.shape[1]), bool)
    prompts_per_shard = len(self.tokens) // len(self._shards)
    for n, shard in enumerate(self._shards):
      prompt, member = np.divmod(np.array(running[shard], int), self.tokens.shape[1])
      prompt += n * prompts_per_shard
      taken = (after[shard] - before[shard])[:, None]
      row, step = np.nonzero(np.arange(new.tokens.shape[-1]) < taken)
      at = prompt[row], member[row], before[shard][row] + step
      for out, x in zip(jax.tree.leaves(outs), jax.tree.leaves(new), strict=True):
        out[at] = x[n, row, step]
      self.lengths[prompt, member] = after[shard]
      if stop:
        self._stop(stop, prompt, member, before[shard], stopped[shard])
    return stopped

  def _stop(
    self,
    stop: StopStrings,
    prompt: Int[np.ndarray, " r"],
    member: Int[np.ndarray, " r"],
    before: Int[np.ndarray, " r"],
    stopped: Bool[np.ndarray, " R"],
  ) -> None:
    """Ends sequences at the token that completes a stop string, and notes their rows.

    Args:
      prompt: prompt of each sequence; `member` its index in the group.
      before: tokens known to contain none.
      stopped: gets the rows that were ended.
    """
    for row, at in enumerate(zip(prompt, member, strict=True)):
      found = stop.find(self.tokens[at][: self.lengths[at]], before[row])
      if found:
        stopped[row] = self.stopped[at] = True
        self.lengths[at] = found

  def finish(self, eos_ids: tuple[int, ...]) -> Int8[np.ndarray, "B G"]:
    """Returns a `Finish` value for each sequence, as if none went on."""
    last = np.maximum(self.lengths - 1, 0)[..., None]
    ended = np.isin(np.take_along_axis(self.tokens, last, axis=-1)[..., 0], eos_ids)
    finish = np.where(ended & (self.lengths > 0), Finish.EOS, Finish.LENGTH)
    return np.where(self.stopped, Finish.STOP_STRING, finish).astype(np.int8)

  def result(self, eos_ids: tuple[int, ...], pad_id: int, stats: Stats) -> Result:
    """Returns the result; tokens that were sampled after a stop string become padding."""
    result = Result(
      tokens=self.tokens,
      lengths=self.lengths,
      logp=self.logp,
      behaviour_logp=self.behaviour_logp,
      finish=self.finish(eos_ids),
      stats=stats,
    )
    mask = result.mask
    return result._replace(
      tokens=np.where(mask, self.tokens, np.int32(pad_id)),
      logp=np.where(mask, self.logp, 0),
      behaviour_logp=np.where(mask, self.behaviour_logp, 0),
      certainty=self.certainty and Certainty(*(mean_over_tokens(x, mask) for x in self.certainty)),
      watched_logp=self.watched_logp,
    )


def mean_over_tokens(
  values: Float32[np.ndarray, "B G R"], mask: Bool[np.ndarray, "B G R"]
) -> Float32[np.ndarray, "B G"]:
  """Returns the mean over the tokens of each sequence; 0 without tokens."""
  count = np.maximum(mask.sum(axis=-1), 1)
  return (values.sum(axis=-1, where=mask, dtype=np.float64) / count).astype(np.float32)
