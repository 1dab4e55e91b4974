"""Names of data sets, joined and with paths."""

import pytest

from data.own.names import own_files, split_names
from errors import UserError


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('mnist5k', ['mnist5k']),
    ('mnist5k+mine:1.0.0', ['mnist5k', 'mine:1.0.0']),
    ('folder:/a+b', ['folder:/a+b']),
    ('folder:a+mnist5k', ['folder:a+mnist5k']),
    ('folder:/a+b+folder:~/c:d+e', ['folder:/a+b', 'folder:~/c:d+e']),
    ('mnist5k+names+npz:x+y.npz', ['mnist5k', 'names', 'npz:x+y.npz']),
    ('csv:C:/folder:x.csv', ['csv:C:/folder:x.csv']),
  ],
)
def test_a_plus_joins_names_and_belongs_to_paths(name, expected):
  assert split_names(name) == expected


def test_a_kind_and_its_path():
  assert own_files('folder:/a:b') == ('folder', '/a:b')
  assert own_files('mnist5k:1.0.0') is None and own_files('folder') is None
  with pytest.raises(UserError, match='names no path'):
    own_files('csv: ')
