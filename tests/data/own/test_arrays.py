"""Arrays that NumPy wrote."""

import numpy as np
import pytest

from errors import UserError
from tests.data.own.files_of_ours import opened

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)
LABELS = np.arange(40) % 3


def write(path, **arrays):
  np.savez(path, **arrays)
  return f'npz:{path}'


@pytest.mark.parametrize(
  ('names', 'images', 'labels'),
  [
    (('x_train', 'y_train', 'x_test', 'y_test'), IMAGES, LABELS),
    (('train_images', 'train_labels', 'test_images', 'test_labels'), IMAGES, LABELS[:, None]),
    (('image_train', 'label_train', 'image_test', 'label_test'), IMAGES.astype(int), LABELS),
  ],
)
def test_names_of_splits(tmp_path, names, images, labels):
  arrays = dict(zip(names, (images[:30], labels[:30], images[30:], labels[30:]), strict=True))
  name = write(tmp_path / 'x.npz', **arrays)
  test = opened(name, 'test')
  read = test.read(range(len(test)))
  assert test.spec.features['image'] == ((6, 5, 1), 'uint8') and len(opened(name)) == 30
  assert test.spec.class_names == ('0', '1', '2')
  found = {(image.tobytes(), int(label)) for image, label in zip(read['image'], read['label'])}
  assert found == {(IMAGES[i].tobytes(), int(LABELS[i])) for i in range(30, 40)}


def test_one_split_is_dealt(tmp_path, capsys):
  colour = np.repeat(IMAGES[..., None], 3, -1)
  name = write(
    tmp_path / 'x.npz', image=colour, label=np.array(['u', 'v'])[LABELS % 2], more=LABELS
  )
  train, test = opened(name), opened(name, 'test')
  assert len(train) + len(test) == 40 and len(test) and train.spec.class_names == ('u', 'v')
  assert 'not read: more' in capsys.readouterr().err
  small = opened(name, image=dict(size=(3,), channels=1))
  assert small.spec.features['image'] == ((3, 3, 1), 'uint8')


def test_rows_of_numbers_and_float_targets(tmp_path):
  rows = np.random.default_rng(0).normal(size=(40, 3))
  name = write(tmp_path / 'x.npz', x=rows, y=rows.sum(1))
  train = opened(name)
  read = train.read(range(len(train)))
  assert [*train.spec.features] == ['inputs', 'target']
  np.testing.assert_allclose(read['inputs'].sum(1), read['target'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    (dict(a=LABELS), r'has the arrays a, and needs x_train'),
    (dict(y=LABELS), 'has the arrays y, and needs'),
    (dict(x=IMAGES, image=IMAGES), 'two arrays for the same'),
    (dict(x=IMAGES, y=LABELS[:9]), r'"y" has the shape \(9,\), .* each of 40 examples'),
    (dict(x=IMAGES, y=np.eye(40)), 'argmax'),
    (dict(x=IMAGES / 255), r'float64 from 0\.0 to 1\.0, and images are whole numbers'),
    (dict(x=np.zeros((4, 3, 8, 8), np.uint8)), 'moveaxis'),
    (dict(x=np.full((4, 2), np.nan)), 'row 0, column 0 of "x" is nan, the first of 8'),
    (dict(x=IMAGES, y=np.array([None] * 40)), '"y" holds Python objects'),
    (dict(x=np.array(['a'] * 4)), r'"x" has the shape \(4,\)'),
    (dict(x_train=IMAGES, y_train=LABELS, x_test=IMAGES), 'and none for test'),
    (
      dict(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:, 1:], y_test=LABELS),
      'the splits of .* differ',
    ),
  ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
  with pytest.raises(UserError, match=message):
    opened(write(tmp_path / 'x.npz', **arrays))


def test_files_that_are_no_archives(tmp_path):
  (tmp_path / 'x.npz').write_bytes(b'no archive')
  np.save(tmp_path / 'x.npy', LABELS)
  for name in ('x.npz', 'x.npy'):
    with pytest.raises(UserError, match=r'cannot be read .*np\.savez'):
      opened(f'npz:{tmp_path}/{name}')
  with pytest.raises(UserError, match=r'is a folder; name an \.npz file'):
    opened(f'npz:{tmp_path}')
