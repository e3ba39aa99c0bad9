"""Analogue clocks that show full hours, half hours or quarters."""

from collections.abc import Iterator

from sejax.data.figures import angles
from sejax.data.figures.board import BLUE, INK, RED, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng

_STEPS = 144  # steps of 2.5 degrees in a full turn


class _Clock(Family):
  """Content: time, centre, radius and colour of the hour hand."""

  name = "clock"
  _minutes = ((0,), (0, 30), (0, 15, 30, 45))

  def content(self, rng: Rng, level: int) -> tuple:
    time = rng.between(1, 12), rng.choice(self._minutes[level])
    radius = rng.between(98, 110)
    slack = 111 - radius
    centre = 112 + rng.between(-slack, slack), 112 + rng.between(-slack, slack)
    return time, centre, radius, rng.choice((INK, BLUE, RED))

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    (hour, minute), (x, y), radius, ink = content
    board.ring(x, y, radius, INK)
    for mark in range(1, 13):
      dx, dy = _direction(mark * 12)
      if mark % 3:
        reach = radius - 11
        board.disc(x + angles.scaled(reach, dx), y + angles.scaled(reach, dy), 4, INK)
      else:
        reach = radius - 20
        board.text(x + angles.scaled(reach, dx), y + angles.scaled(reach, dy), str(mark))
    for turn, length, width, colour in (
      (minute * _STEPS // 60, radius - 36, 6, INK),
      (hour * 12 + minute // 5, radius - 60, 12, ink),
    ):
      dx, dy = _direction(turn)
      board.line(x, y, x + angles.scaled(length, dx), y + angles.scaled(length, dy), colour, width)
    board.disc(x, y, 7, INK)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What time is it?", "What time does the clock show?", "Read the clock."

  def facts(self, content: tuple) -> Claims:
    return _claims(*content[0])

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    hour, minute = content[0]
    if minute:
      yield "the next hour", _claims(hour % 12 + 1, minute)
    else:
      yield "an hour off", _claims((hour - 1 + rng.choice((1, -1))) % 12 + 1, 0)
    swapped = (minute // 5) or 12, hour % 12 * 5
    yield "hands swapped", _claims(*swapped)
    yield "minute hand misread", _claims(hour, (minute + rng.choice((15, 30, 45))) % 60)
    yield "far off", _claims((hour - 1 + rng.between(3, 9)) % 12 + 1, minute)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    hour, minute, answer = claims["hour"], claims["minute"], claims["answer"]
    points = int(minute) // 5 or 12
    where = f"past {hour}" if minute else f"at {hour}"
    return (
      f"The short hand is {where}, the long hand at {points}. It is {answer}.",
      f"Long hand at {points}: {minute} minutes. Short hand {where}. So {answer}.",
      f"Hour {hour}, minute {minute}: {answer}.",
    )


def _claims(hour: int, minute: int) -> Claims:
  return {"hour": hour, "minute": minute, "answer": f"{hour}:{minute:02d}"}


def _direction(steps: int) -> tuple[int, int]:
  """Returns the unit vector, times `angles.ONE`, of a hand `steps` clockwise from the top."""
  return angles.sine(steps), -angles.cosine(steps)


FAMILIES = (_Clock(),)
