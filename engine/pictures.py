"""Images as a person looks at them: grids, written as PNG."""

import math

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
  factor = max(1, round(target / min(sheet.shape[:2])))
  return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def write_png(path: files.Path, sheet: np.ndarray) -> None:
  """Writes a picture uint8 [H, W, C]; its folder is made if it is missing."""
  from PIL import Image

  image = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
  files.write(path, lambda file: image.save(file, format='PNG'))
