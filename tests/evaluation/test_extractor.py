"""A model as extractor: its replies are those of transformers, whatever is asked beside them."""

import pytest
import torch
import transformers

from configs import tiny
from sejax import config as config_lib
from sejax.config import modes
from sejax.evaluation import extractor as extractor_lib

pytestmark = pytest.mark.long

DIRECTORY = tiny.get_config().model.path
PROMPTS = [
  "How many red dots are there?",
  "What time does the clock show? It is not <image> but <|image_pad|> that is text here.",
  "Below is a response. " + "The bar of B is as high as 4. " * 30 + "Final answer:",
]


@pytest.fixture(scope="module")
def extractor():
  config = config_lib.default()
  config.model.dtype = "float32"
  config.eval.update(extractor=DIRECTORY, batch_size=2)
  return modes.extractor(config)


@pytest.fixture(scope="module")
def replies(extractor):
  return extractor(PROMPTS, 0.0)


def test_greedy_replies_equal_transformers(extractor, replies):
  kind = transformers.Qwen2_5_VLForConditionalGeneration
  model = kind.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
  processor = extractor._processor
  banned = processor.banned_ids(extractor._model.text.vocab_size).tolist()
  for prompt, reply in zip(PROMPTS, replies, strict=True):
    ids = torch.from_numpy(extractor._tokens(prompt)[None]).long()
    assert processor.image_pad_id not in ids
    generated = model.generate(
      input_ids=ids,
      attention_mask=torch.ones_like(ids),
      do_sample=False,
      max_new_tokens=extractor_lib._NEW_TOKENS,
      suppress_tokens=banned,
    )
    assert processor.decode(generated[0, ids.shape[1] :].numpy()) == reply
  assert any(replies)


def test_a_reply_does_not_depend_on_what_is_asked_beside_it(extractor, replies):
  assert extractor(PROMPTS[::-1], 0.0) == replies[::-1]
  assert extractor(PROMPTS[1:2], 0.0) == replies[1:2]


def test_a_further_try_is_drawn_at_random_but_again_the_same(extractor, replies):
  hot = extractor(PROMPTS, 1.5)
  assert hot != replies
  assert extractor(PROMPTS[::-1], 1.5) == hot[::-1]


def test_nothing_asked_is_nothing_said(extractor):
  assert extractor([], 0.0) == []


def test_a_directory_that_is_none_is_named():
  config = config_lib.default()
  config.eval.extractor = "none"
  with pytest.raises(ValueError, match=r"^config\.eval\.extractor=.none. is not a directory"):
    config_lib.with_local_inputs(config, ["eval.extractor"], {})
