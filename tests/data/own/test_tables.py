"""Tables: values, categories, missing values, and files that are refused."""

import numpy as np
import pytest

from errors import UserError
from tests.data.own.files_of_ours import opened

ROWS = 40


def write(path, lines, header='a,b,c,y', ending='\n', encoding='utf-8'):
  path.write_bytes((ending.join([header, *lines]) + ending).encode(encoding))
  return f'csv:{path}'


def lines_of(row):
  """40 lines, each by its number."""
  return [row(i) for i in range(ROWS)]


def both(name, **options):
  """All examples, sorted by their first input."""
  parts = [opened(name, split, **options) for split in ('train', 'test')]
  read = [part.read(range(len(part))) for part in parts]
  joined = {key: np.concatenate([part[key] for part in read]) for key in read[0]}
  order = np.argsort(joined['inputs'][:, 0])
  return {key: values[order] for key, values in joined.items()}, parts[0].spec


def test_numbers_words_and_truth_values(tmp_path):
  lines = lines_of(
    lambda i: f'{i / 4},"{["x, y", "z"][i % 2]}",{["True", "false"][i % 2]},k{i % 3}'
  )
  found, spec = both(write(tmp_path / 't.csv', lines), table=dict(target='y'))
  number = np.arange(ROWS)
  expected = np.stack([number / 4, number % 2 == 0, number % 2 == 1, number % 2 == 0], 1)
  np.testing.assert_array_equal(found['inputs'], expected.astype(np.float32))
  assert spec.class_names == ('k0', 'k1', 'k2') and 'target' not in spec.features
  np.testing.assert_array_equal(found['label'], number % 3)


def test_whole_numbers_are_classes_and_targets_others_targets_only(tmp_path):
  name = write(tmp_path / 't.csv', lines_of(lambda i: f'{i},0,{i % 2 - 1},{i / 3}'))
  found, spec = both(name, table=dict(target='c'))
  np.testing.assert_array_equal(found['target'], np.arange(ROWS) % 2 - 1)
  assert spec.class_names == ('-1', '0')
  found, spec = both(name, table=dict(target='y', ignore=('b',)))
  np.testing.assert_allclose(found['target'], np.arange(ROWS) / 3, rtol=1e-6)
  assert spec.num_classes == 0 and spec.features['inputs'] == ((2,), 'float32')


def test_semicolons_decimal_commas_and_marks(tmp_path):
  lines = lines_of(lambda i: f'{i},5;{i};w;{i % 2}')
  name = write(tmp_path / 't.csv', lines, 'a;b;c;y', '\r\n', 'utf-8-sig')
  found, _ = both(name, table=dict(target='y'))
  np.testing.assert_array_equal(found['inputs'][:, 0], np.arange(ROWS) + 0.5)


@pytest.mark.parametrize(('missing', 'value'), [('mean', None), ('median', 1.0)])
def test_missing_values_are_filled_from_the_training_rows(tmp_path, missing, value):
  lines = lines_of(lambda i: f'{i},{["", "1", "1", "7"][i % 4]},{["", "w"][i % 2]},{i % 2}')
  name = write(tmp_path / 't.csv', lines)
  found, _ = both(name, table=dict(target='y', missing=missing))
  training = opened(name, table=dict(target='y', missing=missing))
  read = training.read(range(len(training)))['inputs']
  known = read[read[:, 0] % 4 != 0, 1]
  filled = found['inputs'][::4, 1]
  np.testing.assert_allclose(filled, known.mean() if value is None else value, rtol=1e-6)
  np.testing.assert_array_equal(found['inputs'][:, 2], np.arange(ROWS) % 2)


def test_rows_with_missing_values_are_dropped(tmp_path, capsys):
  lines = lines_of(lambda i: f'{i},{["NaN", "1"][i % 2]},{i},{["", "n", "m", "n"][i % 4]}')
  found, _ = both(write(tmp_path / 't.csv', lines), table=dict(target='y', missing='drop'))
  np.testing.assert_array_equal(found['inputs'][:, 0], np.arange(1, ROWS, 2))
  assert 'left out 20 of 40 rows' in capsys.readouterr().err


def test_numbers_as_categories_and_columns_for_groups(tmp_path):
  name = write(tmp_path / 't.csv', lines_of(lambda i: f'{i},{i % 3},{"uv"[i % 2]},{i % 2}'))
  table = dict(target='y', categories=('b',), ignore=('c',))
  found, spec = both(name, table=table, columns=('b', 'c'))
  assert spec.features['inputs'] == ((4,), 'float32')
  np.testing.assert_array_equal(found['b'], np.arange(ROWS) % 3)
  np.testing.assert_array_equal(found['c'], np.arange(ROWS) % 2)


def test_a_folder_with_a_test_file(tmp_path):
  write(tmp_path / 'train.csv', lines_of(lambda i: f'{i},0,0,{i % 2}'))
  write(tmp_path / 'test.csv', ['100,0,0,1', '101,0,0,0'])
  test = opened(f'csv:{tmp_path}', 'test', table=dict(target='y'))
  assert sorted(test.read(range(2))['inputs'][:, 0]) == [100, 101]
  write(tmp_path / 'test.csv', ['100,0,0,2'])
  with pytest.raises(UserError, match='class "2" has rows in test and none in train'):
    opened(f'csv:{tmp_path}', table=dict(target='y'))


GOOD = [f'{i},{i},w{i % 2},{i % 2}' for i in range(ROWS)]


@pytest.mark.parametrize(
  ('lines', 'table', 'message'),
  [
    (GOOD, {}, r'table\.target is missing: name the column .*, one of a, b, c, y'),
    (GOOD, dict(target='Y'), r'target=Y: .* no such column \(did you mean "y"\?\); it has: a, b'),
    (GOOD, dict(target='y', ignore=('z',)), r'table\.ignore=z: .* no such column'),
    ([*GOOD, '1,2,w1'], {}, 'line 42 of t.csv has 3 values for the 4 columns'),
    ([*GOOD, '1,,w1,1'], {}, r'"b" lacks values \(1\), the first on line 42'),
    ([*GOOD, '1,1,w1,?'], {}, r'"y" lacks values \(1\)'),
    ([*GOOD, '1,2 m,w1,1'], {}, '"b" holds numbers and words, the first "2 m" on line 42'),
    ([*GOOD, '1,1e300,w1,1'], {}, 'line 42: "b" is 1e\\+300, which is infinite or too large'),
    ([*GOOD, '1,inf,w1,1'], {}, 'line 42: "b" is inf'),
    ([*GOOD, '1,"2,w1,1'], {}, 't.csv: line 42 is no CSV'),
    ([f'1,{i},2024-05-{i + 1:02},{i % 2}' for i in range(28)], {}, '"c" holds dates'),
    ([f'1,{i},"1,{i}00",{i % 2}' for i in range(28)], {}, 'holds numbers as "1,000" on line 2'),
    ([f'1,{i},n{i},{i % 2}' for i in range(101)], {}, '101 different words, the first "n0"'),
    ([f'1,{i},1,name{i}' for i in range(300)], {}, 'names no classes'),
    ([], {}, 'has a header and no rows'),
  ],
)
def test_tables_that_are_refused(tmp_path, lines, table, message):
  name = write(tmp_path / 't.csv', lines)
  given = table if table or 'is missing: name' in message else dict(target='y')
  with pytest.raises(UserError, match=message):
    opened(name, table=given)


@pytest.mark.parametrize(
  ('header', 'message'),
  [
    ('1,2,w,0', 'holds numbers .*, and must name the columns'),
    (',b,c,y', 'column 1 of t.csv has no name'),
    ('a,b,b,y', 'has two columns "b"'),
  ],
)
def test_headers_that_are_refused(tmp_path, header, message):
  with pytest.raises(UserError, match=message):
    opened(write(tmp_path / 't.csv', GOOD, header), table=dict(target='y'))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty'),
    (b'a,y\n\xe9,1\n', 'not UTF-8 at byte 4'),
    (b'a,y\n\0,1\n', 'is no text'),
    (b'PK\x03\x04\0\0\xe9', 'is no text in UTF-8; save'),
    ('a,y\n1,2\n'.encode('utf-16'), 'is no text'),
  ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
  (tmp_path / 't.csv').write_bytes(content)
  with pytest.raises(UserError, match=message):
    opened(f'csv:{tmp_path}/t.csv', table=dict(target='y'))
