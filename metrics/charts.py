"""Charts as images, rendered without a display and without pyplot's global state.

The colours can be distinguished with the common colour-vision deficiencies: a map of one hue from
light to dark, and two colours of Okabe and Ito (2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_MAP = 'Blues'
_ABSENT = '#d9d9d9'
_SKY_BLUE, _VERMILLION = '#56b4e9', '#d55e00'
_LINES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_STYLES = ('-', '--', ':', '-.')
_DOTS_PER_INCH = 100
# With more than 20 classes zeros would hide the other counts; with more than 100 a cell is too
# small for a count, and the axes for all names.
_MOST_ZEROS, _MOST_WRITTEN = 20, 100
_LONGEST_NAME = 24


def to_pixels(figure: Figure) -> np.ndarray:
  """Renders a figure as uint8 [H, W, 3]."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
  """Plots a confusion matrix: true classes down, predicted classes across.

  A cell is coloured by its share of the true class; the row of a class without examples is grey. Up
  to 100 classes, counts are written into the cells (zeros only up to 20 classes) and all names on
  the axes; with more classes there are only colours and some class numbers.

  Args:
    counts: int [K, K], [true][predicted].
    names: K names of the classes.
  """
  import matplotlib
  from matplotlib.figure import Figure

  classes = len(counts)
  support = counts.sum(axis=1, keepdims=True)
  shares = np.ma.masked_array(
    counts / np.maximum(support, 1), np.broadcast_to(support == 0, counts.shape)
  )
  colours = matplotlib.colormaps[_MAP].with_extremes(bad=_ABSENT)
  written = classes <= _MOST_WRITTEN
  cell = float(np.clip(6 / classes, 0.25, 1) if written else max(10 / classes, 0.02))
  side = classes * cell
  shown = [_shortened(name) for name in names] if written else []
  name_size = min(10, cell * 50)
  longest = max(map(len, shown), default=0) * _inches_wide(name_size)
  # Space for the cells, the names (slanted below the cells), and the titles of axes and colour bar.
  size = (side + longest + 1.5, side + 0.75 * longest + 0.6)
  figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout='compressed')
  axes = figure.add_subplot()
  image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation='nearest')
  bar = figure.colorbar(image, ax=axes, shrink=0.7)
  title_size = max(10, side)
  bar.ax.tick_params(labelsize=title_size)
  bar.set_label('share of the true class', fontsize=title_size)
  axes.set_xlabel('predicted class', fontsize=title_size)
  axes.set_ylabel('true class', fontsize=title_size)
  if not written:
    axes.tick_params(labelsize=title_size)
    axes.locator_params(integer=True)
    return figure

  slanted = dict(rotation=45, ha='right', rotation_mode='anchor') if longest > cell else {}
  axes.set_yticks(range(classes), shown, fontsize=name_size, parse_math=False)
  axes.set_xticks(range(classes), shown, fontsize=name_size, parse_math=False, **slanted)
  digits = len(str(counts.max()))
  count_size = min(12, 0.85 * cell / _inches_wide(digits))
  text_colours = np.apply_along_axis(_text_colour, -1, colours(shares))
  zeros = classes <= _MOST_ZEROS
  for true, predicted in np.argwhere((counts > 0) | zeros):
    # Not in the layout: measuring 10,000 texts takes longer than rendering them.
    axes.text(
      predicted, true, str(counts[true, predicted]), ha='center', va='center', fontsize=count_size,
      color=text_colours[true, predicted], in_layout=False,
    )  # fmt: skip
  return figure


def reliability(
  count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, error: float
) -> Figure:
  """Plots a reliability diagram: accuracy by confidence, and below it the share of each bin.

  The bars of a calibrated model end at the mark of their mean confidence, near the diagonal.

  Args:
    count: int [M], examples in each of M bins of equal width between 0 and 1.
    confidence: [M], mean confidence of the bin; NaN if it is empty.
    accuracy: [M], accuracy of the bin; NaN if it is empty.
    error: the expected calibration error.
  """
  from matplotlib.figure import Figure

  edges = np.linspace(0, 1, len(count) + 1)
  width = edges[1]
  figure = Figure(figsize=(6, 7), dpi=_DOTS_PER_INCH, layout='constrained')
  above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  bars = dict(width=width, align='edge', color=_SKY_BLUE, edgecolor='white', linewidth=0.8)
  above.bar(edges[:-1], np.nan_to_num(accuracy), label='accuracy', **bars)
  above.hlines(
    confidence, edges[:-1], edges[1:], colors=_VERMILLION, linewidth=2.5, label='mean confidence'
  )
  above.plot((0, 1), (0, 1), color='black', linestyle='--', linewidth=1, label='calibrated')
  above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel='accuracy')
  above.set_title(f'expected calibration error {error:.3g}')
  above.legend(loc='upper left')
  below.bar(edges[:-1], count / max(1, count.sum()), **bars)
  below.set(xlabel='confidence in the predicted class', ylabel='share of examples')
  for axes in (above, below):
    axes.set_axisbelow(True)
    axes.grid(axis='y', color='0.9')
  return figure


def curves(
  lines: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]], figure_name: str
) -> Figure:
  """A figure by step, one line for each run.

  Args:
    lines: by name of the run: steps, values, and standard deviations over lanes around them, NaN
      where there is none.
    figure_name: the name of what is drawn.
  """
  from matplotlib.figure import Figure

  longest = max((len(name) for name in lines), default=0)
  width = 7 + min(longest, 60) * _inches_wide(10)
  figure = Figure(figsize=(width, 4.5), dpi=_DOTS_PER_INCH, layout='constrained')
  axes = figure.add_subplot()
  for number, (name, (steps, values, deviations)) in enumerate(lines.items()):
    colour = _LINES[number % len(_LINES)]
    style = _STYLES[number // len(_LINES) % len(_STYLES)]
    # A single point has no line.
    marker = 'o' if len(steps) == 1 else None
    axes.plot(steps, values, color=colour, linestyle=style, marker=marker, label=name)
    low, high = np.subtract(values, deviations), np.add(values, deviations)
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
  axes.set_xlabel('step')
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.set_ylabel(figure_name, parse_math=False)
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  legend = figure.legend(loc='outside right upper')
  for text in legend.get_texts():
    text.set_parse_math(False)
  return figure


def _inches_wide(size: float) -> float:
  """Returns the approximate width of a character in inches: 0.6 of the font size in points."""
  return 0.6 * size / 72


def _shortened(name: str) -> str:
  return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'


def _text_colour(background: np.ndarray) -> str:
  """Returns 'black' or 'white', whichever contrasts more with a colour, [3] or [4] in [0, 1].

  Contrast is that of the Web Content Accessibility Guidelines 2.2, by which black and white are
  equal at the relative luminance L with (L + 0.05)² = 1.05 · 0.05.
  """
  rgb = np.asarray(background[:3])
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  luminance = linear @ (0.2126, 0.7152, 0.0722)
  return 'black' if luminance > np.sqrt(1.05 * 0.05) - 0.05 else 'white'
