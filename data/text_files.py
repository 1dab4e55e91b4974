"""Text in files, decoded for training and for prediction alike."""

import codecs


def decode(content: bytes) -> str:
  """Decodes UTF-8, or UTF-16 with its mark; ValueError says at which byte it is neither."""
  if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    try:
      return content.decode('utf-16')
    except UnicodeDecodeError as error:
      raise ValueError(f'is not UTF-16 at byte {error.start}') from error
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'is not UTF-8 at byte {error.start} (iconv -f latin1 -t utf8 converts Latin-1)'
    ) from error
