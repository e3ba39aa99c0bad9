"""Pre-training of tiny models: chains of reasoning, and workdirs that are not mixed up."""

import numpy as np
import pytest

from experiments.tiny_vlm import chains, examples, training
from sejax import assets
from sejax.data import figures
from sejax.data.figures.rng import Rng
from sejax.models.processor import Processor
from sejax.text import answers


@pytest.fixture(scope="module")
def problems():
  source = figures.source(families=dict.fromkeys(figures.LEARNABLE, 1.0), length=300, seed=3)
  return [source.problem(index) for index in range(300)]


def test_chains_arrive_at_their_claims_in_the_required_form(problems):
  for number, problem in enumerate(problems):
    for claims in (problem.facts, *(wrong.claims for wrong in problem.wrong)):
      text = chains.chain(problem, claims, Rng("test", number))
      assert answers.format_ok(text)
      assert answers.extract(text) == str(claims["answer"])


def test_chains_differ_in_form_and_length(problems):
  processor = Processor.load(assets.TINY_VLM)
  texts = [chains.chain(x, x.facts, Rng("test", n)) for n, x in enumerate(problems)]
  lengths = np.array([len(processor.encode_text(text)) for text in texts])
  plain = np.array([len(processor.encode_text(problem.solution)) for problem in problems])
  assert lengths.std() > 3 * plain.std()
  assert lengths.mean() > 1.5 * plain.mean()
  assert lengths.max() < 112  # `actor.max_tokens` in the study
  # One look, two and three, each in some.
  looks = [
    sum(text.count(again) for again in ("gain", "Check: ", "No. ", "Wait: ")) for text in texts
  ]
  assert set(looks) == {0, 1, 2}


def test_some_chains_correct_their_first_look_and_only_right_ones_do(problems):
  for wrong in (False, True):
    corrected = 0
    for number, problem in enumerate(problems):
      claims = problem.wrong[0].claims if wrong else problem.facts
      text = chains.chain(problem, claims, Rng("test", number))
      corrected += "No. " in text or "Wait: " in text
    assert corrected == 0 if wrong else 25 < corrected < 75


def test_examples_are_chained_on_request_alone(problems):
  processor = Processor.load(assets.TINY_VLM)
  for number, problem in enumerate(problems[:20]):
    plain, chained = (
      examples.actor_example(processor, problem, Rng("test", number), 0, chained=chained)
      for chained in (False, True)
    )
    np.testing.assert_array_equal(plain.prompt, chained.prompt)
    text = processor.tokenizer.decode(plain.continuation[:-1])
    assert text == problem.solution
    text = processor.tokenizer.decode(chained.continuation[:-1])
    assert text == chains.chain(problem, problem.facts, Rng("test", number))


def test_a_workdir_keeps_to_its_recipe(tmp_path):
  config = training.get_config()
  training.require_recipe(config, tmp_path)
  config.update(stop=10, checkpoint_every=5)
  training.require_recipe(config, tmp_path)
  config.update(chains=True, seed=3)
  with pytest.raises(ValueError, match="begun with another chains, seed; take another workdir"):
    training.require_recipe(config, tmp_path)


def test_the_recipe_of_the_bundled_model_draws_the_same_rows_as_ever():
  """Their sum was written down before chains could be asked for."""
  config = training.get_config()
  processor = Processor.load(assets.TINY_VLM)
  model = training.model_config(config.family, processor, config.vocab_size)
  rows = training.Rows(config, processor)
  (batch,) = rows.batches(model, range(400, 401))
  sums = [int(texts.tokens.sum()) for texts in (batch.actor, batch.judge)]
  assert sums == [122525, 1004851]
