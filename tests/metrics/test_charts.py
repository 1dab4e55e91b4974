import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from metrics import charts


@pytest.fixture(autouse=True)
def nothing_on_the_terminal():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


def colour_at(figure, axes, x, y):
  """The pixel, [3] in 0..255, at a place of an axis."""
  pixels = charts.to_pixels(figure).astype(int)
  across, up = axes.transData.transform((x, y))
  return pixels[len(pixels) - 1 - round(up), round(across)]


def labels_of(axis):
  return [label.get_text() for label in axis.get_ticklabels()]


def inside(figure, artists):
  """Whether all that artists draw lies within the picture."""
  charts.to_pixels(figure)
  boxes = [artist.get_window_extent() for artist in artists]
  return all(
    box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for box in boxes
  )


def test_confusion_matrix_has_true_classes_down_and_shares_as_colours():
  counts = np.array([[3, 1], [0, 400]])
  figure = charts.confusion_matrix(counts, ['T-shirt/top', 'Ankle boot'])
  axes, bar = figure.axes
  assert (axes.get_ylabel(), axes.get_xlabel()) == ('true class', 'predicted class')
  assert bar.get_ylabel() == 'share of the true class'
  assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
    ((0, 0), '3'), ((1, 0), '1'), ((0, 1), '0'), ((1, 1), '400'),
  }  # fmt: skip
  assert labels_of(axes.xaxis) == labels_of(axes.yaxis) == ['T-shirt/top', 'Ankle boot']
  # Off the counts' centres; the first row is the upper one.
  for (true, predicted), share in {(0, 0): 0.75, (0, 1): 0.25, (1, 0): 0.0, (1, 1): 1.0}.items():
    expected = 255 * np.array(matplotlib.colormaps['Blues'](share)[:3])
    found = colour_at(figure, axes, predicted - 0.4, true - 0.4)
    np.testing.assert_allclose(found, expected, atol=2)


def test_a_class_without_examples_is_grey():
  figure = charts.confusion_matrix(np.array([[2, 0, 0], [0, 0, 0], [0, 1, 1]]), 'abc')
  red, green, blue = colour_at(figure, figure.axes[0], 0.6, 0.6)
  assert red == green == blue < 230


def contrast(ink, colour):
  """The contrast ratio of the Web Content Accessibility Guidelines."""

  def luminance(rgb):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

  light, dark = sorted((luminance(ink), luminance(colour)), reverse=True)
  return (light + 0.05) / (dark + 0.05)


def test_counts_can_be_read_on_every_colour():
  # 100 of each class, of which 0 to 100 are mistaken.
  for mistaken in range(0, 101, 4):
    counts = np.array([[100 - mistaken, mistaken], [0, 0]])
    axes = charts.confusion_matrix(counts, 'ab').axes[0]
    image = axes.images[0]
    for text in axes.texts:
      column, row = text.get_position()
      colour = image.to_rgba(image.get_array())[row, column]
      # 4.5 is the guidelines' least for small text.
      assert contrast(matplotlib.colors.to_rgb(text.get_color()), colour[:3]) > 4.5


@pytest.mark.parametrize(
  'names',
  [
    ['a name that is far too long for any axis', 'another that is as long as it is dull'],
    ['$5', '$6', 'a_b^c'],
    ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag',
     'Ankle boot'],
    [f'number {k}' for k in range(25)],
    ['LINEN AND WOOL MIXED', 'SILK', 'COTTON', 'JUTE', 'HEMP'],
  ],
)  # fmt: skip
def test_names_and_counts_fit(names):
  classes = len(names)
  counts = np.full((classes, classes), 12345)
  figure = charts.confusion_matrix(counts, names)
  axes = figure.axes[0]
  for shown, name in zip(labels_of(axes.xaxis), names):
    assert shown == name or (shown.endswith('…') and name.startswith(shown[:-1]))
  ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
  assert inside(figure, [*ticks, axes.xaxis.label, axes.yaxis.label, figure.axes[1].yaxis.label])
  assert not any(label.get_parse_math() for label in ticks)
  # The names take no room from the cells: 600 pixels for all of them, 25 to 100 for one.
  width = axes.get_window_extent().width / classes
  assert width > 0.9 * np.clip(600 / classes, 25, 100)
  assert all(text.get_window_extent().width < width for text in axes.texts[:3])
  flat = [label.get_window_extent() for label in axes.get_xticklabels()]
  if axes.get_xticklabels()[0].get_rotation() == 0:
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(flat))


def test_many_classes():
  hundred = charts.confusion_matrix(np.eye(100, dtype=int) * 7, [str(k) for k in range(100)])
  axes = hundred.axes[0]
  # Zeros left out, every name written, at a size that can be read.
  assert [text.get_text() for text in axes.texts] == ['7'] * 100
  assert labels_of(axes.yaxis) == [str(k) for k in range(100)]
  assert min(text.get_fontsize() for text in axes.texts) >= 8
  thousand = charts.confusion_matrix(np.eye(1000, dtype=int), [str(k) for k in range(1000)])
  assert not thousand.axes[0].texts
  pixels = charts.to_pixels(thousand)
  assert max(pixels.shape) < 3000
  assert len(thousand.axes[0].get_xticks()) < 20


def test_reliability():
  count = np.array([0, 30, 10])
  confidence, accuracy = np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 0.25, 1.0])
  figure = charts.reliability(count, confidence, accuracy, 0.125)
  above, below = figure.axes
  assert above.get_ylabel() == 'accuracy'
  assert (below.get_xlabel(), below.get_ylabel()) == (
    'confidence in the predicted class', 'share of examples',
  )  # fmt: skip
  assert above.get_title() == 'expected calibration error 0.125'
  np.testing.assert_allclose([bar.get_height() for bar in above.patches], [0, 0.25, 1])
  np.testing.assert_allclose([bar.get_height() for bar in below.patches], [0, 0.75, 0.25])
  np.testing.assert_allclose([bar.get_x() for bar in above.patches], [0, 1 / 3, 2 / 3])
  diagonal = above.lines[0].get_xydata()
  np.testing.assert_allclose(diagonal, [(0, 0), (1, 1)])
  white = [255, 255, 255]
  assert colour_at(figure, above, 0.4, 0.1).tolist() != white
  assert colour_at(figure, above, 0.4, 0.28).tolist() == white
  assert colour_at(figure, below, 0.9, 0.1).tolist() != white
  # The marks at the mean confidence, in the bins that hold examples.
  red, _, blue = colour_at(figure, above, 0.45, 0.5)
  assert red > 200 and blue < 60
  texts = {text.get_text() for text in above.get_legend().get_texts()}
  assert texts == {'accuracy', 'mean confidence', 'calibrated'}


def test_pixels_without_pyplot_and_with_nothing_left_behind():
  draws = (
    'import sys; import numpy as np; from metrics import charts; import matplotlib; '
    'before = matplotlib.rcParams.copy(); '
    'a = charts.to_pixels(charts.confusion_matrix(np.eye(2, dtype=int), "ab")); '
    'b = charts.to_pixels(charts.reliability(np.ones(2), np.ones(2), np.ones(2), 0.0)); '
    'assert a.dtype == b.dtype == np.uint8 and a.shape[2] == b.shape[2] == 3; '
    'assert a.flags.owndata and a.flags.c_contiguous; '
    'assert before == matplotlib.rcParams.copy(); '
    'assert "matplotlib.pyplot" not in sys.modules'
  )
  root = Path(__file__).parents[2]
  done = subprocess.run([sys.executable, '-c', draws], cwd=root, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('last', [3, 30, 70_000])
def test_steps_are_whole_numbers(last):
  figure = charts.curves({'runs/a': ((1, last), (0.5, 0.25), (np.nan, np.nan))}, 'model/loss')
  ticks = figure.axes[0].get_xticks()
  assert len(ticks) > 1 and all(float(tick).is_integer() for tick in ticks)
