"""What a call of the sampler returns, and the host buffer that collects it."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int8, Int32

from sejax.sampling.decode import SampledTokens
from sejax.sampling.scheduler import Schedule


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
    repacks: times that the device batch was repacked or aligned.
    seconds: wall-clock time by stage: layout, prefill, decode, pack and compile. Of the others only
      layout, which is compiled once, includes its compilation.
  """

  programs: int
  steps: int
  row_steps: int
  repacks: int
  seconds: dict[str, float]


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
  """

  tokens: Int32[np.ndarray, "B G R"]
  lengths: Int32[np.ndarray, "B G"]
  logp: Float32[np.ndarray, "B G R"]
  behaviour_logp: Float32[np.ndarray, "B G R"]
  finish: Int8[np.ndarray, "B G"]
  stats: Stats

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
    self, prompts: int, members: int, max_new_tokens: int, *, pad_id: int, shards: Sequence[int]
  ):
    """Allocates the arrays.

    Args:
      prompts: prompts of this process, B.
      members: sequences of each prompt, G.
      max_new_tokens: maximum number of tokens to sample for a sequence, R.
      shards: indices of this process's row shards.
    """
    shape = (prompts, members, max_new_tokens)
    self.tokens = np.full(shape, pad_id, np.int32)
    self.lengths = np.zeros(shape[:2], np.int32)
    self.logp = np.zeros(shape, np.float32)
    self.behaviour_logp = np.zeros(shape, np.float32)
    self.stopped = np.zeros(shape[:2], bool)
    self._shards = list(shards)

  def add(
    self,
    schedule: Schedule,
    num_sampled: Int[np.ndarray, "N B G"],
    sampled: SampledTokens,
    stop: StopStrings | None,
  ) -> Bool[np.ndarray, "N B G"]:
    """Adds the tokens of a decode run.

    Args:
      schedule: the schedule before the decode run.
      num_sampled: tokens of every sequence after the decode run.
      sampled: numpy arrays `[n*B,G,C]` of C decode steps, from this process's n shards.
      stop: strings that end a sequence.

    Returns:
      The sequences of this process that a stop string ended.
    """
    stopped = np.zeros(schedule.active.shape, bool)
    # [n,B,G,C]
    tokens, logp, behaviour_logp = (
      x.reshape(len(self._shards), *schedule.active.shape[1:], -1) for x in sampled
    )
    prompts_per_shard = len(self.tokens) // len(self._shards)
    for shard, slot, member in zip(*np.nonzero(schedule.active[self._shards]), strict=True):
      at = self._shards[shard], slot, member
      start, end = schedule.num_sampled[at], num_sampled[at]
      row = shard * prompts_per_shard + schedule.prompt[at[:2]], schedule.member[at]
      for out, new in (
        (self.tokens, tokens),
        (self.logp, logp),
        (self.behaviour_logp, behaviour_logp),
      ):
        out[row][start:end] = new[shard, slot, member, : end - start]
      found = stop and stop.find(self.tokens[row][:end], start)
      if found:
        stopped[at] = self.stopped[row] = True
      self.lengths[row] = found or end
    return stopped

  def result(self, eos_ids: tuple[int, ...], pad_id: int, stats: Stats) -> Result:
    """Returns the result; tokens that were sampled after a stop string become padding."""
    last = np.maximum(self.lengths - 1, 0)[..., None]
    ended = np.isin(np.take_along_axis(self.tokens, last, axis=-1)[..., 0], eos_ids)
    finish = np.where(ended & (self.lengths > 0), Finish.EOS, Finish.LENGTH)
    finish = np.where(self.stopped, Finish.STOP_STRING, finish).astype(np.int8)
    result = Result(
      tokens=self.tokens,
      lengths=self.lengths,
      logp=self.logp,
      behaviour_logp=self.behaviour_logp,
      finish=finish,
      stats=stats,
    )
    mask = result.mask
    return result._replace(
      tokens=np.where(mask, self.tokens, np.int32(pad_id)),
      logp=np.where(mask, self.logp, 0),
      behaviour_logp=np.where(mask, self.behaviour_logp, 0),
    )
