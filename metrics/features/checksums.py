"""Files of weights, read whole and compared with the checksum that they must have."""

import hashlib
from pathlib import Path

from errors import UserError


def read_checked(file: Path, checksum: str, way_out: str) -> bytes:
  """Reads a file and compares it with its checksum.

  Args:
    file: where it lies.
    checksum: its SHA-256, hexadecimal, or the first digits of it.
    way_out: what to do where it is damaged, the end of a sentence.

  Raises:
    UserError: the file cannot be read, or is another.
  """
  try:
    content = file.read_bytes()
  except OSError as error:
    raise UserError(f'{file} cannot be read ({error.strerror}); {way_out}') from error
  found = hashlib.sha256(content).hexdigest()
  if not checksum or not found.startswith(checksum):
    raise UserError(
      f'{file} is damaged or another file: its SHA-256 is {found} and must begin with '
      f'{checksum or "what is missing in its description"}; {way_out}'
    )
  return content
