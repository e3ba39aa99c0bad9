"""Random bits identify a token, independently of where it is computed."""

import jax.numpy as jnp
import numpy as np

from sejax.sampling import keys


def make(seed=1, step=2, role=keys.Role.ACTOR, records=("a", "b", "c"), members=4, repeat=0):
  return np.asarray(
    keys.sequence_keys(
      jnp.uint32(seed),
      jnp.int32(step),
      jnp.int32(role),
      keys.record_hashes("set", records),
      jnp.arange(members),
      jnp.full(members, repeat),
    )
  )


def test_hashes_are_those_of_the_algorithm():
  """blake2b with 8 bytes, as `b2sum -l 64` prints it, little-endian words."""
  found = keys.record_hashes("set", ["7", ""])
  assert found.dtype == np.uint32
  assert [w.tobytes().hex() for w in found] == ["4aa7212eb2919053", "d67e9d4352e2f077"]


def test_a_record_that_occurs_once_keeps_its_keys():
  """Regression values from before keys depended on the occurrence."""
  hashes = [[1531019008, 3028588862], [1995031391, 473986585], [3398443190, 2474095744]]
  assert keys.record_hashes("figures", ["5", "x/7", "ü"]).tolist() == hashes
  found = keys.record_hashes("figures", ["5", "x/7", "ü"], [0, 0, 0])
  assert found.tolist() == hashes
  numbers = (jnp.uint32(3), jnp.int32(4), jnp.int32(keys.Role.ACTOR))
  drawn = keys.sequence_keys(*numbers, found[:2], jnp.arange(2), jnp.zeros(2, jnp.int32))
  assert drawn.tolist() == [
    [[690582445, 3699450328], [1377456306, 2441337824]],
    [[1622377575, 4052277024], [136560843, 2767895158]],
  ]


def test_each_occurrence_of_a_record_has_other_keys():
  times = 1000  # occurrences of each record, as with a tiny data set and a large batch
  records = ["a", "b"] * times
  found = keys.record_hashes("set", records, [n // 2 for n in range(2 * times)])
  assert len(np.unique(found, axis=0)) == 2 * times
  np.testing.assert_array_equal(found[4:6], keys.record_hashes("set", ["a", "b"], [2, 2]))
  # No record id hashes like another occurrence of a different record.
  assert (
    len(np.unique(keys.record_hashes("set", ["a", "a\x001", "a1", "1"], [1, 0, 0, 0]), axis=0)) == 4
  )


def test_every_part_gives_another_key():
  same = make()
  np.testing.assert_array_equal(same, make())
  changed = [make(seed=2), make(step=3), make(role=keys.Role.JUDGE), make(repeat=1)]
  changed.append(make(records=("x", "y", "z")))
  everything = np.concatenate([x.reshape(-1, 2) for x in [same, *changed]])
  assert len(np.unique(everything, axis=0)) == len(everything)


def test_a_record_keeps_its_keys_in_another_batch():
  np.testing.assert_array_equal(make()[1], make(records=("z", "q", "b", "a"))[2])
  np.testing.assert_array_equal(make()[:, :2], make(members=2))


def test_tokens_differ_and_do_not_depend_on_their_neighbours():
  key = make()
  first = np.asarray(keys.token_bits(key, jnp.zeros((3, 4), jnp.int32)))
  mixed = np.asarray(keys.token_bits(key[::-1, :2], jnp.array([[0, 5]] * 3)))
  np.testing.assert_array_equal(first[::-1, 0], mixed[:, 0])
  assert (first[::-1, 1] != mixed[:, 1]).any(axis=-1).all()
  assert len(np.unique(first)) == first.size
