"""Images as a person looks at them: grids, written as PNG."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import files


def grid(images: np.ndarray, columns: int = 0, margin: int = 2) -> np.ndarray:
  """Lays out images row by row on white.

  Args:
    images: float [N, H, W, C] in [0, 1], C 1 or 3.
    columns: 0 for as square as it gets.
    margin: pixels around each.

  Returns:
    uint8 [rows·(H + margin) + margin, columns·(W + margin) + margin, C].
  """
  number, height, width, channels = images.shape
  columns = columns or math.ceil(math.sqrt(number))
  rows = math.ceil(number / columns)
  size = (rows * (height + margin) + margin, columns * (width + margin) + margin, channels)
  sheet = np.full(size, 255, np.uint8)
  for i, image in enumerate(to_uint8(images)):
    top = margin + (i // columns) * (height + margin)
    left = margin + (i % columns) * (width + margin)
    sheet[top : top + height, left : left + width] = image
  return sheet


def to_uint8(images: np.ndarray) -> np.ndarray:
  """[0, 1] to 0..255, rounded; what lies outside is clipped."""
  return np.clip(np.asarray(images, np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)


def enlarge(sheet: np.ndarray, target: int = 512) -> np.ndarray:
  """Repeats pixels so that the shorter side has about `target`: 28 pixels are hard to see."""
  factor = _factor(sheet, target)
  return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def captioned(
  images: np.ndarray, columns: Sequence[str], rows: Sequence[str], margin: int = 2
) -> np.ndarray:
  """Lays out images as a table with words above its columns and left of its rows.

  Args:
    images: float [R, K, H, W, C] in [0, 1], C 1 or 3.
    columns: the words of each column; empty for none.
    rows: the words of each row, of one or several lines; empty for none.
    margin: pixels around each image, before they are enlarged.

  Returns:
    uint8 [height, width, C].
  """
  from PIL import Image, ImageDraw

  beside, height, width, channels = images.shape[1:]
  sheet = grid(images.reshape(-1, height, width, channels), beside, margin)
  lines = max((row.count('\n') + 1 for row in rows), default=1)
  # An image is as high as the words beside it, and as wide as a short word above it.
  high, wide = -(-lines * _LINE // (height + margin)), -(-4 * _FONT // (width + margin))
  factor = max(_factor(sheet), high, wide)
  sheet = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
  step_x, step_y, edge = (width + margin) * factor, (height + margin) * factor, margin * factor
  above = [_wrapped(words, step_x - _GAP) for words in columns]
  left = max((_extent(row)[0] for row in rows), default=0)
  top = max((_extent(words)[1] for words in above), default=0)
  left, top = left + 2 * _GAP if left else 0, top + 2 * _GAP if top else 0
  whole = Image.new('RGB', (left + sheet.shape[1], top + sheet.shape[0]), 'white')
  whole.paste(Image.fromarray(np.broadcast_to(sheet, (*sheet.shape[:2], 3))), (left, top))
  draw = ImageDraw.Draw(whole)

  def write(x: int, y: int, words: str, anchor: str) -> None:
    draw.multiline_text((x, y), words, 'black', _font(), anchor, _LINE - _FONT, 'center')

  for column, words in enumerate(above):
    write(left + edge + column * step_x + width * factor // 2, top - _GAP, words, 'md')
  for row, words in enumerate(rows):
    write(left // 2, top + edge + row * step_y + height * factor // 2, words, 'mm')
  pixels = np.asarray(whole)
  return pixels[..., :1] if channels == 1 else pixels


# Pixels: the size of the words, from line to line, and around them.
_FONT, _LINE, _GAP = 13, 17, 6


@functools.cache
def _font() -> Any:
  """Pillow's own font, which needs no file of the system."""
  from PIL import ImageFont

  return ImageFont.load_default(_FONT)


def _extent(words: str) -> tuple[int, int]:
  """Width and height of words in pixels."""
  lines = words.split('\n')
  return math.ceil(max(_font().getlength(line) for line in lines)), len(lines) * _LINE


def _wrapped(words: str, width: int) -> str:
  """The words with line ends in place of spaces, so that each line fits if it can."""
  lines: list[str] = []
  for word in words.split(' '):
    joined = f'{lines[-1]} {word}' if lines else word
    if lines and _extent(joined)[0] <= width:
      lines[-1] = joined
    else:
      lines.append(word)
  return '\n'.join(lines)


def _factor(sheet: np.ndarray, target: int = 512) -> int:
  return max(1, round(target / min(sheet.shape[:2])))


def write_png(path: files.Path, sheet: np.ndarray) -> None:
  """Writes a picture uint8 [H, W, C]; its folder is made if it is missing."""
  from PIL import Image

  image = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
  files.write(path, lambda file: image.save(file, format='PNG'))
