"""The stream of examples: order, sharing, restoring, and what becomes of bad records."""

import collections
import json
import random

import pytest

from sejax.data import batches
from sejax.data.pipeline import Options, Pipeline, check
from sejax.data.records import BadRecord, gold_if_readable
from tests.data.problems import Problems, preparer, random_png

BAD = frozenset({3, 11})


@pytest.fixture
def make(model_directory):
  """Returns what makes a pipeline over a small source with two bad records."""

  def pipeline(size=13, bad=BAD, *, process=0, processes=1, states=(), limits=None, **options):
    return Pipeline(
      preparer(Problems(size, bad), model_directory, **(limits or {})),
      Options(**{"batch_size": 4, "seed": 5, "max_bad_share": 0.5} | options),
      process=process,
      processes=processes,
      states=states,
    )

  return pipeline


def ids(rows):
  return [example.id for example in rows]


def test_each_epoch_is_another_order_of_all_good_records(make):
  pipeline = make()
  stream = [name for _ in range(11) for name in ids(next(pipeline))]  # 4 epochs of 11
  epochs = [stream[start : start + 11] for start in range(0, 44, 11)]
  good = sorted(f"p/{i}" for i in range(13) if i not in BAD)
  assert [sorted(epoch) for epoch in epochs] == [good] * 4
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert pipeline.dropped == {"broken": pipeline.seen - 44}


def number_steps(pipelines, steps):
  """Returns for each step the number of each record's occurrences by their places in the stream."""
  found = []
  for _ in range(steps):
    rows = [next(pipeline) for pipeline in pipelines]
    parts = [[(example.position, example.id) for example in part] for part in rows]
    numbers = batches.occurrences(parts, collections.Counter())
    found.append(
      {
        place: number
        for part, row in zip(parts, numbers, strict=True)
        for place, number in zip(part, row, strict=True)
      }
    )
  return found


def processes(make, count, size, **options):
  return [make(size, process=n, processes=count, **options) for n in range(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_occurrences_in_a_step_depend_on_the_stream_alone(make, count):
  whole = number_steps(processes(make, 1, 7, bad=frozenset(), batch_size=16), 5)
  assert sorted(whole[0].values()) == [0] * 7 + [1] * 7 + [2] * 2
  for step in whole:  # In the stream's order, an earlier occurrence has the smaller number.
    of_record = collections.defaultdict(list)
    for (_, record), number in sorted(step.items()):
      of_record[record].append(number)
    assert all(numbers == list(range(len(numbers))) for numbers in of_record.values())
  split = processes(make, count, 7, bad=frozenset(), batch_size=16)
  assert number_steps(split, 2) == whole[:2]
  states = [json.loads(json.dumps(pipeline.state())) for pipeline in split]
  resumed = processes(make, count, 7, bad=frozenset(), batch_size=16, states=states)
  assert number_steps(resumed, 3) == whole[2:]
  assert (
    number_steps(processes(make, 1, 7, bad=frozenset(), batch_size=16, states=states), 3)
    == (whole[2:])
  )


@pytest.mark.parametrize("count", [1, 2])
def test_no_two_occurrences_of_a_record_have_the_same_number(make, count):
  """Two epochs meet in a batch; processes that drop records do not read equally far."""
  steps = number_steps(processes(make, count, 13, batch_size=8), 12)
  for step in steps:
    rows = [(record, number) for (_, record), number in step.items()]
    assert len(set(rows)) == len(rows) == 8
  assert {number for step in steps for number in step.values()} == {0, 1}


def test_another_seed_is_another_order(make):
  assert ids(next(make(seed=1))) != ids(next(make(seed=2)))
  assert ids(next(make(seed=1))) == ids(next(make(seed=1)))


@pytest.mark.long
def test_it_goes_on_from_any_point_as_if_it_had_not_stopped(make):
  """20 points over 6 epochs: within an epoch, at its end, right after bad records."""
  whole = make()
  states, batches = [json.dumps(whole.state())], []
  for _ in range(18):
    batches.append(ids(next(whole)))
    states.append(json.dumps(whole.state()))
  for point in random.Random(0).choices(range(17), k=20):
    resumed = make(states=[json.loads(states[point])])
    assert ids(next(resumed)) == batches[point]
    assert ids(next(resumed)) == batches[point + 1]
    assert json.dumps(resumed.state()) == states[point + 2]


def test_processes_share_the_stream_without_overlap(make):
  alone = make(bad=frozenset())
  both = [make(bad=frozenset(), process=p, processes=2) for p in range(2)]
  for _ in range(10):  # Across epochs of odd length, too.
    rows = [ids(next(pipeline)) for pipeline in both]
    assert [len(r) for r in rows] == [2, 2]
    interleaved = [name for pair in zip(*rows, strict=True) for name in pair]
    assert interleaved == ids(next(alone))


def test_another_number_of_processes_goes_on_where_all_have_read_equally_far(make):
  alone = make(bad=frozenset())
  for _ in range(3):
    next(alone)
  pair = [make(bad=frozenset(), process=p, processes=2, states=[alone.state()]) for p in range(2)]
  rows = [ids(next(pipeline)) for pipeline in pair]
  expected = ids(next(alone))
  assert [name for two in zip(*rows, strict=True) for name in two] == expected
  back = make(bad=frozenset(), states=[pipeline.state() for pipeline in reversed(pair)])
  assert ids(next(back)) == ids(next(alone))
  assert back.seen == alone.seen


@pytest.mark.long
@pytest.mark.parametrize("numbers", [(2, 1), (2, 4, 1), (4, 1, 2), (4, 2, 4, 1)])
def test_other_numbers_of_processes_read_each_position_once(make, numbers):
  """Bad records let some processes read further than others."""
  states, read, uneven = [], [], False
  for processes in numbers:
    pipelines = [make(process=p, processes=processes, states=states) for p in range(processes)]
    for _ in range(7):
      read += [example.position for pipeline in pipelines for example in next(pipeline)]
    states = json.loads(json.dumps([pipeline.state() for pipeline in pipelines]))
    uneven |= len({state["turn"] for state in states}) > 1
  assert uneven
  assert len(read) == len(set(read)) == 4 * 7 * len(numbers)
  alone, end = make(), min(state["turn"] for state in states)
  expected = [example.position for _ in range(40) for example in next(alone)]
  assert sorted(x for x in read if x < end) == [x for x in expected if x < end]
  counts = [(p.seen, p.dropped.total()) for p in pipelines]
  assert sum(seen - dropped for seen, dropped in counts) == len(read)


@pytest.mark.parametrize(
  ("change", "message"),
  [({"seed": 6}, "seed=5; this run has 6"), ({"size": 14}, "records=13; this run has 14")],
)
def test_the_state_of_another_stream_is_refused(make, change, message):
  state = make().state()
  with pytest.raises(ValueError, match=message):
    make(**change, states=[state])


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_change_neither_records_nor_order(make, workers):
  alone = make()
  for _ in range(2):
    next(alone)
  state = alone.state()
  pipeline = make(workers=workers, states=[state])
  for _ in range(5):
    assert ids(next(pipeline)) == ids(next(alone))
    assert pipeline.state() == alone.state()


def test_one_pass_keeps_the_order_and_ends_with_a_short_batch(make):
  assert [ids(rows) for rows in make(once=True)] == [
    ["p/0", "p/1", "p/2", "p/4"],
    ["p/5", "p/6", "p/7", "p/8"],
    ["p/9", "p/10", "p/12"],
  ]


def test_a_bad_record_stops_the_run_where_that_is_asked(make):
  pipeline = make(on_bad_record="stop", once=True)
  with pytest.raises(
    ValueError, match=r"record p/3: it is broken.*on_bad_record='skip' would go on"
  ):
    list(pipeline)


def test_too_many_bad_records_stop_the_run(make):
  pipeline = make(size=200, bad=frozenset(range(0, 200, 4)), max_bad_share=0.2, once=True)
  with pytest.raises(
    ValueError,
    match=r"26 of 101 records of problems are bad, more than config.data.max_bad_share=0.2: 26",
  ):
    list(pipeline)


def test_skipped_records_are_logged_with_their_id(make, caplog):
  list(make(once=True))
  assert "record p/3: it is broken" in caplog.text


def test_a_source_without_a_good_record_does_not_spin(make):
  with pytest.raises(
    ValueError, match=r"none of 10 records of problems in a row .*so far: 10 broken"
  ):
    next(make(size=5, bad=frozenset(range(5)), max_bad_share=1.0))


@pytest.mark.parametrize("seed", range(3))
def test_one_good_record_is_enough(make, seed):
  pipeline = make(bad=frozenset(range(1, 13)), max_bad_share=1.0, batch_size=6, seed=seed)
  assert ids(next(pipeline)) == ["p/0"] * 6


def test_drops_in_a_process_of_many_do_not_end_the_run(make):
  bad = frozenset(range(8))  # Half of the 16, of which each process has 2 an epoch.
  for process in range(8):
    pipeline = make(16, bad, process=process, processes=8, max_bad_share=1.0, batch_size=8)
    assert all(len(next(pipeline)) == 1 for _ in range(10))


def test_a_model_directory_that_cannot_be_read_is_no_fault_of_records(tmp_path):
  with pytest.raises(ValueError, match="absent"):
    Pipeline(preparer(Problems(3), tmp_path / "absent"), Options(batch_size=1))


def test_an_id_that_cannot_be_hashed_is_a_bad_record(model_directory):
  class Half(Problems):
    def __getitem__(self, index):
      return type(super().__getitem__(0))("a\ud800", "What?")

  dropped = preparer(Half(1), model_directory)(0)
  assert (dropped.id, dropped.kind) == ("index 0", "unusable prompt")


def test_a_prompt_is_dropped_whole_when_it_is_one_token_too_long(make, model_directory):
  example = preparer(Problems(3), model_directory)(2)
  for limit, kept in ((len(example.actor), True), (len(example.actor) - 1, False)):
    pipeline = make(size=3, bad=frozenset(), once=True, limits={"prompt_limit": limit})
    names = [name for rows in pipeline for name in ids(rows)]
    assert ("p/2" in names) is kept
    assert pipeline.dropped == ({} if kept else {"too long": 1})


@pytest.mark.parametrize(
  ("content", "kind"),
  [
    (random_png(28, 28)[:-20], "truncated image"),
    (random_png(1, 201), "elongated image"),
    (b"nonsense", "unreadable image"),
  ],
)
def test_a_bad_image_is_named(model_directory, content, kind):
  class OneImage(Problems):
    def __getitem__(self, index):
      return type(super().__getitem__(0))("one", "What?", (content,))

  dropped = preparer(OneImage(1), model_directory)(0)
  assert (dropped.id, dropped.kind) == ("one", kind)


@pytest.mark.parametrize(
  ("width", "height", "grid"), [(1, 1, [1, 4, 4]), (26, 28, [1, 6, 4]), (2, 400, [1, 58, 2])]
)
def test_small_and_thin_images_are_enlarged(model_directory, width, height, grid):
  class OneImage(Problems):
    def __getitem__(self, index):
      return type(super().__getitem__(0))("one", "What?", (random_png(width, height),))

  prepare = preparer(OneImage(1), model_directory, patch_limit=2000)
  assert prepare(0).grids.tolist() == [grid]


def test_image_tokens_typed_in_a_question_capture_no_image(model_directory):
  class Typed(Problems):
    def __getitem__(self, index):
      return type(super().__getitem__(0))("one", "<|image_pad|> What?", (random_png(28, 28),))

  example = preparer(Typed(1), model_directory)(0)
  processor = preparer(Typed(1), model_directory).processor
  assert (example.actor == processor.image_pad_id).sum() == example.grids.prod() // 4


def test_a_set_with_bad_records_at_even_distances_is_accepted(model_directory):
  check(preparer(Problems(1600, frozenset(range(0, 1600, 100))), model_directory), 0.05)


def test_a_set_of_which_all_is_bad_is_refused(model_directory):
  bad = preparer(Problems(1600, frozenset(range(1600))), model_directory)
  with pytest.raises(
    ValueError, match=r"none of 16 records of problems that were tried can be used"
  ):
    check(bad, 0.05)
  check(bad, 0.9)  # Of as many that the run would accept, some look so.


def warnings(caplog):
  return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_ten_drops_of_a_kind_are_logged_and_the_others_counted(make, caplog):
  bad = frozenset(range(0, 60, 2))
  pipeline = make(60, bad, max_bad_share=1.0, once=True, limits={"patch_limit": 8})
  kept = [name for rows in pipeline for name in ids(rows)]
  long = 30 - len(kept)
  assert pipeline.dropped == {"broken": 30, "too long": long}
  assert long > 10
  said = warnings(caplog)
  for kind in ("broken", "too long"):
    lines = [line for line in said if f" ({kind})" in line]
    assert len(lines) == 10
    assert ["counted, not logged" in line for line in lines] == [False] * 9 + [True]
  assert said[-1] == f"Dropped {30 + long} of 60 records of problems: 30 broken, {long} too long"


def test_few_drops_are_not_summed_up(make, caplog):
  list(make(once=True))
  assert len(warnings(caplog)) == 2


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_set_of_which_nothing_fits_ends_after_a_thousand(make, caplog, processes):
  pipeline = make(5000, frozenset(), process=0, processes=processes, limits={"prompt_limit": 3})
  with pytest.raises(ValueError, match=r"none of 1000 records of problems in a row") as caught:
    next(pipeline)
  assert len(warnings(caplog)) == 10
  assert pipeline.dropped == {"too long": 1000}
  assert "(dropped so far: 1000 too long); the last one: record p/" in str(caught.value)
  said = str(caught.value)
  assert "tokens; the limit is 3, by config.data.prompt_limit; see --mode=inspect" in said
  assert len(said) <= 300


@pytest.mark.long
def test_a_thousand_bad_records_after_good_ones_end_nothing(make):
  pipeline = make(1500, frozenset(range(1, 1500)), max_bad_share=1.0, batch_size=1)
  state = pipeline.state()
  first = make(1500, frozenset(), batch_size=1)
  place = next(n for n in range(1500) if ids(next(first)) == ["p/0"])
  resumed = make(
    1500,
    frozenset(range(1, 1500)),
    max_bad_share=1.0,
    batch_size=1,
    states=[{**state, "turn": place}],
  )
  assert [ids(next(resumed)) for _ in range(2)] == [["p/0"]] * 2


class Listed(Problems):
  """Problems whose answers cannot be read."""

  def gold(self, index):
    raise BadRecord("bad answer", "its answer is ['1', '2'], with 2 entries", f"p/{index}")


def test_unreadable_answers_are_said_at_start_and_refused_where_needed(model_directory, caplog):
  check(preparer(Listed(40), model_directory), 0.05)
  (said,) = warnings(caplog)
  assert said.startswith(
    "16 answers of 16 records of problems that were tried cannot be read; they"
  )
  assert "its answer is ['1', '2']" in said
  with pytest.raises(ValueError, match=r"its answer is .* config\.rewards.function needs"):
    check(preparer(Listed(40), model_directory), 0.05, needs_gold=True)


def test_missing_answers_are_refused_where_they_are_needed(model_directory):
  class Unanswered(Problems):
    def gold(self, index):
      return None

  check(preparer(Unanswered(40), model_directory), 0.05)
  with pytest.raises(ValueError, match=r"of problems has no gold answer; config\.rewards"):
    check(preparer(Unanswered(40), model_directory), 0.05, needs_gold=True)


def test_an_unreadable_answer_counts_as_none_where_it_is_not_needed(caplog):
  assert gold_if_readable(Problems(3), 1) == "2"
  assert gold_if_readable(Listed(3), 1) is None
  assert "record p/1: its answer is" in caplog.text
