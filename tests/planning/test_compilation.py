"""`--mode=compile` on this machine's own device in place of a TPU: every program, and what fits."""

import json
import shutil

import jax
import pytest

from configs import tiny
from sejax import main as main_lib
from sejax.config import modes, validation
from sejax.parallel import chips
from sejax.planning import compilation, topologies

pytestmark = pytest.mark.long

PREPARING = ("unstack", "sequence keys", "empty state", "prefill")
DECODING = ("decode, a token", "write", "move pages")
ACTOR = tuple(f"actor {call}" for call in (*PREPARING, *DECODING))
JUDGE = tuple(f"judge {call}" for call in (*PREPARING, "given tokens", *DECODING))
SCORED = ("log-probs of policy", "log-probs of reference", "add gradient")
UPDATE = ("take groups", SCORED[0], "zero gradient", *SCORED[1:], "apply gradient")
MULTIPLY = ("vision", "prefill", "given tokens", "decode, a token", *SCORED)
# All weights are trained: the Actor's are cast, and the Judge's tower is another than the Actor's.
ALL_WEIGHTS = (
  *("actor vision", "actor layout", *ACTOR),
  *("judge vision", *JUDGE),
  *UPDATE,
)
ADAPTERS = (
  *("actor vision", *ACTOR),
  *JUDGE,
  "scale adapters",
  *UPDATE,
)


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr(topologies, "devices", lambda _: jax.local_devices()[:1])
  config = tiny.get_config()
  config.update(batch_size=4, mini_batch_size=2)
  config.train.micro_batch_size = 2
  config.model.unroll = False
  config.train.freeze_vision = False
  return config


@pytest.mark.parametrize(("rank", "calls"), [(0, ALL_WEIGHTS), (4, ADAPTERS)])
def test_every_program_of_a_step(config, capsys, rank, calls):
  config.lora.rank = rank
  validation.validate(config, reads_data=False)
  assert modes.plan(config, "v5e:1x1")
  printed = capsys.readouterr().out
  result = json.loads(printed.splitlines()[-1])
  rows = {row["program"]: row for row in result["programs"]}
  assert tuple(rows) == calls
  assert result["fits"]
  assert result["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}
  for name, row in rows.items():
    assert row["peak"] >= row["arguments"], name
    assert (row["flops"] > 0) == name.endswith(MULTIPLY), name
    assert not row["error"]
    assert name in printed
  # Frozen weights in half precision, and trained ones, their moments and gradient in full, are kept
  # while this runs; adapters have next to none of these.
  weights = 4 * 2_763_904
  scored = rows["log-probs of reference"]
  kept = (4.5 if rank == 0 else 0.5) * weights
  assert scored["peak"] - scored["temporaries"] == pytest.approx(kept, abs=0.2 * weights)


def test_without_a_judge_none_is_compiled(config, capsys):
  config.judge.use = False
  assert modes.plan(config, "v5e:1x1", ["write"])
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert [row["program"] for row in result["programs"]] == ["actor write"]


def test_a_chip_that_is_too_small(config, capsys, monkeypatch):
  small = chips.TPUS["v5e"]._replace(memory=1e6)
  monkeypatch.setitem(chips.TPUS, "v5e", small)
  assert not modes.plan(config, "v5e:1x1", ["actor write"])
  printed = capsys.readouterr().out
  assert not json.loads(printed.splitlines()[-1])["fits"]
  assert "!" in next(line for line in printed.splitlines() if line.startswith("actor write"))


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "--topology is missing"),
    (["--topology=v9:2x2"], "--topology=v9:2x2 must be a TPU's generation and a shape, such as"),
    (["--topology=v5e"], "--topology=v5e must be a TPU's generation and a shape"),
    (["--topology=v5e:8"], "--topology=v5e:8 must be a TPU's generation and a shape"),
    (["--topology=h100:2x4"], "or a GPU and their number, such as h100:8; there are v5e, v5p, v6e"),
    (["--topology=h100:0"], "--topology=h100:0 must be"),
  ],
)
def test_flags_that_cannot_work(flags, message, capsys):
  argv = ["sejax", "--mode=compile", "--config=configs/tiny.py", *flags]
  assert main_lib.main(argv) == 2
  assert message in capsys.readouterr().err


def test_a_plan_needs_a_model(config):
  config.model.path = ""
  with pytest.raises(ValueError, match=r"^config\.model\.path is empty; give a model directory"):
    modes.plan(config, "v5e:1x1")


def test_a_directory_is_read_even_if_it_has_the_name_of_a_released_model(tmp_path):
  directory = tmp_path / "Qwen2.5-VL-7B-Instruct"
  shutil.copytree(tiny.get_config().model.path, directory)
  assert compilation._model(str(directory)).text.hidden_size == 192


def test_released_models_are_known_by_name(tmp_path):
  model = compilation._model("Qwen/Qwen2.5-VL-7B-Instruct")
  assert model.text.hidden_size == 3584
  with pytest.raises(ValueError, match="has no config"):
    compilation._model(str(tmp_path))
  assert compilation._model(tiny.get_config().model.path).text.hidden_size == 192
