"""Names of data sets, joined and with paths."""

import pytest

from data.own.names import absolute_names, own_files, split_names
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


def test_paths_are_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', '/home/me')
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  given = 'mnist5k+folder:a+b+csv:~/x.csv+text:link/../t.txt'
  expected = f'mnist5k+folder:{tmp_path}/a+b+csv:/home/me/x.csv+text:{tmp_path}/t.txt'
  assert absolute_names(given) == expected and absolute_names(expected) == expected
  assert absolute_names('folder:link') == f'folder:{tmp_path}/link'
  assert absolute_names('npz:gs://some/x.npz') == 'npz:gs://some/x.npz'
  assert absolute_names('') == '' and absolute_names('mine:1.0.0') == 'mine:1.0.0'
