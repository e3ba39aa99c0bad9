"""What a call of the sampler returns, and how it is gathered."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8, Int32

from sejax.sampling.table import Table


class Finish(enum.IntEnum):
  """Why a trajectory ended."""

  EOS = 0
  STOP_STRING = 1
  LENGTH = 2


class Stats(NamedTuple):
  """What a call took.

  Attributes:
    programs: programs compiled by this call.
    steps: steps of decoding.
    row_steps: steps times trajectories computed, of all processes.
    moves: times that trajectories were packed or aligned.
    seconds: by stage: layout, prefill, decode, pack, and compile, which no other includes.
  """

  programs: int
  steps: int
  row_steps: int
  moves: int
  seconds: dict[str, float]


class Result(NamedTuple):
  """Trajectories of this process's prompts, G of each.

  Attributes:
    tokens: what was drawn, EOS included, then padding.
    lengths: tokens drawn.
    logp: of each token with temperature and banned ids, before the other filters, in nats; 0 at
      padding.
    behaviour_logp: of each token under the distribution it was drawn from; 0 at padding.
    finish: a `Finish` each.
    stats: what it took.
  """

  tokens: Int32[np.ndarray, "B G R"]
  lengths: Int32[np.ndarray, "B G"]
  logp: Float32[np.ndarray, "B G R"]
  behaviour_logp: Float32[np.ndarray, "B G R"]
  finish: Int8[np.ndarray, "B G"]
  stats: Stats

  @property
  def mask(self) -> Bool[np.ndarray, "B G R"]:
    """Tokens that were drawn, not padding."""
    return np.arange(self.tokens.shape[-1]) < self.lengths[..., None]

  @property
  def truncated(self) -> Bool[np.ndarray, "B G"]:
    """Trajectories that were cut at the limit."""
    return self.finish == Finish.LENGTH


class Stop(NamedTuple):
  """Strings that end a trajectory, at the token that completes one of them.

  Attributes:
    strings: any of these.
    decode: from tokens to text.
  """

  strings: tuple[str, ...]
  decode: Callable[[Sequence[int]], str]

  def find(self, tokens: Int[np.ndarray, " n"], start: int) -> int | None:
    """Returns how many tokens it takes to complete a string, if more than `start` do."""
    if not self._in(tokens):
      return None
    return next(n for n in range(start + 1, len(tokens) + 1) if self._in(tokens[:n]))

  def _in(self, tokens: Int[np.ndarray, " n"]) -> bool:
    text = self.decode(tokens.tolist())
    return any(string in text for string in self.strings)


class Gatherer:
  """Collects the tokens of this process's shards, run by run."""

  def __init__(self, prompts: int, members: int, size: int, pad_id: int, shards: Sequence[int]):
    shape = (prompts, members, size)
    self.tokens = np.full(shape, pad_id, np.int32)
    self.lengths = np.zeros(shape[:2], np.int32)
    self.logp = np.zeros(shape, np.float32)
    self.behaviour_logp = np.zeros(shape, np.float32)
    self.stopped = np.zeros(shape[:2], bool)
    self._shards = list(shards)

  def add(
    self,
    table: Table,
    count: Int[np.ndarray, "N B G"],
    drawn: tuple[
      Int[np.ndarray, "nB G C"], Float[np.ndarray, "nB G C"], Float[np.ndarray, "nB G C"]
    ],
    stop: Stop | None,
  ) -> Bool[np.ndarray, "N B G"]:
    """Adds the tokens of a run.

    Args:
      table: the book before the run.
      count: tokens of all trajectories after it.
      drawn: tokens, logp and behaviour_logp of C steps, of this process's n shards.
      stop: strings that end a trajectory.

    Returns:
      Places of trajectories that a stop string has ended.
    """
    stopped = np.zeros(table.alive.shape, bool)
    drawn = [x.reshape(len(self._shards), *table.alive.shape[1:], -1) for x in drawn]
    per_shard = len(self.tokens) // len(self._shards)
    for shard, group, member in zip(*np.nonzero(table.alive[self._shards]), strict=True):
      place = self._shards[shard], group, member
      start, end = table.count[place], count[place]
      row = shard * per_shard + table.record[place[:2]], table.member[place]
      outs = (self.tokens, self.logp, self.behaviour_logp)
      for out, new in zip(outs, drawn, strict=True):
        out[row][start:end] = new[shard, group, member, : end - start]
      found = stop and stop.find(self.tokens[row][:end], start)
      if found:
        stopped[place] = self.stopped[row] = True
      self.lengths[row] = found or end
    return stopped

  def result(self, eos_ids: tuple[int, ...], pad_id: int, stats: Stats) -> Result:
    """Returns everything, with what lies behind a stop string wiped."""
    last = np.maximum(self.lengths - 1, 0)[..., None]
    ended = np.isin(np.take_along_axis(self.tokens, last, axis=-1)[..., 0], eos_ids)
    finish = np.where(ended & (self.lengths > 0), Finish.EOS, Finish.LENGTH)
    finish = np.where(self.stopped, Finish.STOP_STRING, finish).astype(np.int8)
    result = Result(self.tokens, self.lengths, self.logp, self.behaviour_logp, finish, stats)
    mask = result.mask
    return result._replace(
      tokens=np.where(mask, self.tokens, np.int32(pad_id)),
      logp=np.where(mask, self.logp, 0),
      behaviour_logp=np.where(mask, self.behaviour_logp, 0),
    )
