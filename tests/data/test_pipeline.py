"""The stream of examples: order, sharing out, restoring, and what is dropped."""

import itertools
import json
import random

import pytest
from absl import flags

from sejax.data.pipeline import Options, Pipeline
from tests.data.problems import Problems, preparer

BAD, LONG = frozenset({3, 11}), frozenset({7})
SOURCE = Problems(23, BAD, LONG)
GOOD = {f"problem-{i}" for i in range(23)} - {f"problem-{i}" for i in BAD | LONG}
LENIENT = {"max_bad_share": 0.5}


def pipeline(directory, batch_size=4, source=SOURCE, where=None, **options) -> Pipeline:
  options = Options(batch_size, **{**LENIENT, "seed": 5, **options})
  return Pipeline(preparer(source, directory), options, **(where or {}))


def ids(batches) -> list[list[str]]:
  return [[example.id for example in batch] for batch in batches]


def first(iterator, count: int) -> list[str]:
  return [name for batch in ids(itertools.islice(iterator, count)) for name in batch]


def test_epochs_are_permutations_and_no_batch_is_cut(directory):
  names = first(pipeline(directory), 15)  # 60 rows: three epochs of 20 good records
  epochs = [names[:20], names[20:40], names[40:]]
  assert [set(epoch) for epoch in epochs] == [GOOD] * 3
  assert len({tuple(epoch) for epoch in epochs}) == 3
  assert names == first(pipeline(directory), 15)
  assert names[:20] != first(pipeline(directory, seed=6), 5)


def test_restores_at_any_point(directory):
  whole = pipeline(directory)
  states, expected = [whole.state()], []
  for _ in range(26):
    expected.append([example.id for example in next(whole)])
    states.append(whole.state())
  # Among 104 rows: within an epoch, at the ends of five, after drops.
  for point in random.Random(0).sample(range(25), 20):
    state = json.loads(json.dumps(states[point]))
    restored = pipeline(directory, where={"states": [state]})
    assert restored.state() == states[point]
    assert ids(itertools.islice(restored, 2)) == expected[point : point + 2]
    assert restored.state() == states[min(point + 2, 26)]


def test_processes_share_the_stream(directory):
  source = Problems(20)
  parts = [pipeline(directory, 4, source, {"process": p, "processes": 2}) for p in range(2)]
  rows = [first(part, 5) for part in parts]  # together one epoch
  assert not set(rows[0]) & set(rows[1])
  merged = [name for pair in zip(*rows, strict=True) for name in pair]
  assert merged == first(pipeline(directory, 4, source), 5)


def test_restores_with_another_number_of_processes(directory):
  source = Problems(9)  # odd: the parts do not repeat from epoch to epoch
  one = pipeline(directory, 4, source)
  expected = first(one, 8)
  parts = [pipeline(directory, 4, source, {"process": p, "processes": 2}) for p in range(2)]
  for part in parts:
    first(part, 3)
  states = [part.state() for part in parts]
  assert first(pipeline(directory, 4, source, {"states": states}), 5) == expected[12:]
  four = [
    pipeline(directory, 4, source, {"process": p, "processes": 4, "states": states})
    for p in range(4)
  ]
  rows = [first(part, 5) for part in four]
  assert [name for row in zip(*rows, strict=True) for name in row] == expected[12:]
  assert sum(part.seen for part in four) == 12 + 20


def test_refuses_states_that_do_not_fit(directory):
  parts = [pipeline(directory, 4, SOURCE, {"process": p, "processes": 2}) for p in range(2)]
  for part in parts:
    first(part, 3)
  states = [part.state() for part in parts]
  assert states[0]["turn"] != states[1]["turn"]  # drops fell unevenly
  with pytest.raises(ValueError, match=r"cannot go on with 1 processes: the 2 that saved had read"):
    pipeline(directory, where={"states": states})
  with pytest.raises(ValueError, match="state is of 2 processes, and 1 are given"):
    pipeline(directory, where={"states": states[:1]})
  with pytest.raises(ValueError, match="seed=5; this run has 6"):
    pipeline(directory, where={"states": states}, seed=6)
  with pytest.raises(ValueError, match="batch_size=4 does not divide by 3 processes"):
    pipeline(directory, where={"processes": 3})
  with pytest.raises(ValueError, match="problems holds no records"):
    pipeline(directory, source=Problems(0))


def test_drops_are_counted_by_kind_and_named(directory, caplog):
  stream = pipeline(directory)
  first(stream, 5)
  assert stream.dropped == {"missing image": 2, "too long": 1}
  assert stream.seen == 23
  said = [record.getMessage() for record in caplog.records if "Dropped" in record.getMessage()]
  assert len(said) == 3
  assert any("problem-7 (too long): the Actor's prompt has" in line for line in said)
  assert any("index 3 (missing image): problem-3: no image" in line for line in said)


def test_stops_at_a_bad_record_but_not_at_a_long_one(directory):
  with pytest.raises(ValueError, match=r"missing image.*on_bad_record='skip'"):
    first(pipeline(directory, on_bad_record="stop"), 6)
  stream = pipeline(directory, source=Problems(23, long=LONG), on_bad_record="stop")
  assert len(first(stream, 5)) == 20


def test_stops_at_too_many_bad_records(directory):
  with pytest.raises(ValueError, match=r"of 23 records are bad.*max_bad_share=0.05: 2 missing"):
    first(pipeline(directory, max_bad_share=0.05, once=True), 8)
  with pytest.raises(ValueError, match="no record gave an example in a whole epoch: 5 too long"):
    next(pipeline(directory, source=Problems(5, long=frozenset(range(5)))))


def test_limit_is_inclusive(directory):
  length = len(next(pipeline(directory, 1, Problems(1)))[0].actor)
  for limit, dropped in ((length, 0), (length - 1, 1)):
    made = preparer(Problems(1), directory, prompt_limit=limit)
    stream = Pipeline(made, Options(1, once=True))
    assert (len(list(stream)), stream.dropped.total()) == (1 - dropped, dropped)


def test_single_pass_in_order(directory):
  rows = ids(pipeline(directory, 8, once=True))
  assert [len(row) for row in rows] == [8, 8, 4]
  names = [f"problem-{i}" for i in range(23)]
  assert [*itertools.chain(*rows)] == [name for name in names if name in GOOD]


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_keep_the_order(directory, workers):
  if not flags.FLAGS.is_parsed():  # grain's worker processes take over the parent's flags
    flags.FLAGS(["test"])
  alone = pipeline(directory)
  expected = ids(itertools.islice(alone, 7))
  helped = pipeline(directory, workers=workers)
  assert ids(itertools.islice(helped, 7)) == expected
  assert helped.state() == alone.state()
