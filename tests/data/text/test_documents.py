"""Documents as rows: framed, cut and padded as BERT sees them."""

import numpy as np
import pytest

import errors
from data.spec import Spec
from data.text.documents import Documents
from data.text.encoded import EncodedText

CLASS, SEPARATOR, PAD, END = 90, 91, 92, 93
TEXTS = [[1, 2, 3], [], [4, 5, 6, 7, 8, 9], [10]]


def documents(row, specials, kinds=False):
  end = [END] * ('end' in specials)
  texts = [text + end for text in TEXTS]
  held = {
    'tokens': np.concatenate(texts).astype(np.uint8),
    'ends': np.cumsum([len(text) for text in texts]),
    'label': np.array([0, 1, 1, 0], np.int32),
  }
  if kinds:
    held['kind'] = (held['tokens'] % 5).astype(np.int8)
    held['kind'][held['tokens'] == END] = -1
  features = {'text': ((), 'string'), 'label': ((), 'int32')}
  spec = Spec('some', 'train', 4, features, 2, 'abc', ('a', 'b'), '{}')
  encoded = EncodedText(None, held)
  return Documents(encoded, spec, row=row, specials=specials, stamp='1')


def test_framed_cut_and_padded():
  got = documents(6, {'class': CLASS, 'separator': SEPARATOR, 'pad': PAD}).read(range(4))
  wanted = [
    [CLASS, 1, 2, 3, SEPARATOR, PAD],
    [CLASS, SEPARATOR, PAD, PAD, PAD, PAD],
    [CLASS, 4, 5, 6, 7, SEPARATOR],
    [CLASS, 10, SEPARATOR, PAD, PAD, PAD],
  ]
  np.testing.assert_array_equal(got['tokens'], wanted)
  assert got['length'].tolist() == [5, 2, 6, 3] and got['label'].tolist() == [0, 1, 1, 0]
  assert {name: values.dtype.name for name, values in got.items()} == dict.fromkeys(got, 'int32')


def test_without_specials_and_without_the_end_of_a_stream():
  for specials in ({}, {'end': END}):
    got = documents(4, specials).read([2, 0, 2])
    np.testing.assert_array_equal(got['tokens'], [[4, 5, 6, 7], [1, 2, 3, 0], [4, 5, 6, 7]])
    assert got['length'].tolist() == [4, 3, 4]


def test_kinds_go_with_their_tokens():
  made = documents(5, {'class': CLASS, 'end': END}, kinds=True)
  got = made.read([0, 2, 1])
  np.testing.assert_array_equal(
    got['kind'], [[-1, 1, 2, 3, -1], [-1, 4, 0, 1, 2], [-1, -1, -1, -1, -1]]
  )
  assert made.spec.features['kind'] == ((5,), 'int32')


def test_arrays_are_what_is_read_and_as_the_spec_says():
  made = documents(6, {'class': CLASS, 'pad': PAD})
  held = made.load()
  assert made.nbytes == sum(array.nbytes for array in held.values())
  assert held.keys() == made.spec.features.keys()
  for name, (shape, dtype) in made.spec.features.items():
    assert held[name].shape == (4, *shape) and held[name].dtype == dtype
    np.testing.assert_array_equal(held[name][[3, 1]], made.read([3, 1])[name])


def test_identity_tells_rows_apart():
  made = [
    documents(6, {}),
    documents(5, {}),
    documents(6, {}, kinds=True),
  ]
  assert len({one.spec.identity for one in made}) == len(made)


def test_no_room():
  specials = {'class': CLASS, 'separator': SEPARATOR}
  with pytest.raises(errors.UserError, match=r'no room for a token .* fill 2 of 2'):
    documents(2, specials)
  assert documents(3, specials).read([2])['tokens'].tolist() == [[CLASS, 4, SEPARATOR]]
