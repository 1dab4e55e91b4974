"""predict.py on runs of files of one's own: inputs are prepared as those files were."""

import csv
import dataclasses
import functools
import io
import re

import numpy as np
import PIL.Image
import pytest

from data.section import open_testing, open_whole
from engine import restore
from engine.session import open_session
from errors import UserError
from tests import runs
from tests.commands.predictions import BATCH, arrays, evaluated, inputs_of, piped, refusal
from tests.data.own.files_of_ours import write_picture
from tests.golden import tiny

HEADER = ['price', 'colour', 'name', 'grade', 'sold', 'rooms', 'y']


def row_of(i):
  """Numbers with gaps, words with gaps, an ignored name, numbers as words, truth, all known."""
  price = '' if i % 7 == 3 else str(i / 3 - 4)
  colour = '?' if i % 5 == 4 else ('red', 'blue, dark', 'Red')[i % 3]
  sold = 'NA' if i % 11 == 5 else ('TRUE', 'false')[i % 2]
  return [price, colour, f'name {i}', str(i % 3 + 1), sold, str(i % 4), f'class {i % 2}']


TRAIN, TEST = [row_of(i) for i in range(60)], [row_of(i) for i in range(60, 85)]


def written(header, rows, delimiter=','):
  text = io.StringIO()
  csv.writer(text, delimiter=delimiter).writerows([header, *rows])
  return text.getvalue()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """`made(kind)`: the folder of a run at its start, and that of its files; made once."""

  @functools.cache
  def make(kind):
    files = tmp_path_factory.mktemp(kind)
    return runs.saved_run(tmp_path_factory.mktemp('runs') / kind, _CONFIGS[kind](files)), files

  return make


def of_table(root):
  (root / 'train.csv').write_text(written(HEADER, TRAIN))
  (root / 'test.csv').write_text(written(HEADER, TEST))
  config = tiny.config_of('tabular', 'breast_cancer')
  config.data.name = f'csv:{root}'
  config.data.table.update(target='y', ignore=('name',), categories=('grade',), missing='mean')
  return config


def of_pictures(root):
  for split, each in (('train', 4), ('test', 3)):
    for i in range(each):
      for place, name in enumerate(('cat', 'dog')):
        size, mode = ((40, 30), 'RGB') if i % 2 else ((20, 36), 'L')
        write_picture(root / split / name / f'{i}.png', 10 * i + place, size, mode)
  config = tiny.config_of('cnn', 'mnist5k')
  config.modules.model.update(channels=(2, 4), widths=(8,))
  config.data.name = f'folder:{root}'
  config.data.image.update(size=(28,), channels=3, resize='pad')
  return config


def of_arrays(root):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (30, 20, 20), np.uint8)
  np.savez(
    root / 'x.npz',
    x_train=images[:20],
    y_train=np.arange(20) % 2,
    x_test=images[20:],
    y_test=np.arange(10) % 2,
  )
  config = tiny.config_of('cnn', 'mnist5k')
  config.modules.model.update(channels=(2, 4), widths=(8,))
  config.data.name = f'npz:{root}/x.npz'
  config.data.image.update(size=(28,), channels=1, resize='stretch')
  return config


def of_rows(root):
  rows = np.random.default_rng(0).normal(size=(30, 3))
  np.savez(root / 'x.npz', x=rows, y=np.where(rows[:, 0] > 0, 'up', 'down'))
  config = tiny.config_of('tabular', 'breast_cancer')
  config.data.name = f'npz:{root}/x.npz'
  return config


def of_texts(root):
  lines = [f'{{"body": "{"ab" * (i % 3)}{i} é\u2028", "stars": {i % 2 + 1}}}' for i in range(60)]
  (root / 'x.jsonl').write_text('\n'.join(lines))
  config = tiny.config_of('bert_classify', '')
  config.data.name = f'text:{root}/x.jsonl'
  config.data.jsonl.update(text='body', label='stars')
  config.data.text.tokenizer, config.data.text.vocabulary = 'byte', 0
  config.optimizer.model.schedule.warmup = 0
  return config


_CONFIGS = {
  'table': of_table,
  'pictures': of_pictures,
  'arrays': of_arrays,
  'rows': of_rows,
  'texts': of_texts,
}


def assert_evaluated(found, workdir):
  """Every example of the test split has the bits of evaluation, in whatever order they are."""
  expected, _ = evaluated(workdir)
  np.testing.assert_array_equal(in_order(found['probability']), in_order(expected['probability']))


def in_order(rows):
  return rows[np.lexsort(rows.T)]


def changed(delimiter=',', columns=HEADER, rows=TEST, cells=None, more=()):
  """The test rows as a table that is written in another way.

  Args:
    delimiter: between cells.
    columns: those of the table, in order.
    rows: other rows.
    cells: `{column: text}` in place of the last row's.
    more: further columns.
  """
  lines = [[*(row[HEADER.index(name)] for name in columns), *('1' for _ in more)] for row in rows]
  for name, text in (cells or {}).items():
    lines[-1][columns.index(name)] = text
  return written([*columns, *more], lines, delimiter)


def test_rows_of_a_table_get_the_inputs_and_probabilities_of_evaluation(made, tmp_path, capsys):
  workdir, _ = made('table')
  (tmp_path / 'x.csv').write_text(changed())
  found = arrays(workdir, tmp_path, f'{tmp_path}/x.csv', batch_size=BATCH)
  assert_evaluated(found, workdir)
  assert 'not read: name, y' in capsys.readouterr().err
  _, examples = evaluated(workdir)
  inputs = in_order(examples['inputs'])
  np.testing.assert_array_equal(in_order(inputs_of(workdir, f'{tmp_path}/x.csv')), inputs)
  # By hand: the mean of the training rows, three words, and of three grades.
  prices = np.array([float(row[0]) for row in TRAIN if row[0]])
  rooms = [float(row[5]) for row in TEST]
  mine = inputs_of(workdir, f'{tmp_path}/x.csv')
  assert mine.shape == (len(TEST), 1 + 3 + 3 + 1 + 1) and (mine[:, -1] == rooms).all()
  gaps = [not row[0] for row in TEST]
  assert any(gaps) and (mine[gaps, 0] == np.float32(prices.mean())).all()
  (run,) = {restore.restore_run(workdir, '').session.spec.input_columns}
  assert [column.name for column in run] == ['price', 'colour', 'grade', 'sold', 'rooms']
  assert run[1].words == ('Red', 'blue, dark', 'red') and run[3].is_truth and run[3].fill


@pytest.mark.parametrize(
  'content',
  [
    changed(columns=[*reversed(HEADER)]),
    changed(columns=HEADER[:-1], more=('id', 'z')),
    changed(delimiter=';').replace('.', ','),
    changed(delimiter='\t'),
    changed().replace('\n', '\r\n'),
    changed().replace('?', ' n/a ').replace('TRUE', 'True'),
  ],
)
def test_tables_that_are_written_otherwise_have_the_same_inputs(
  made, tmp_path, monkeypatch, content
):
  (tmp_path / 'x.csv').write_text(changed())
  expected = inputs_of(made('table')[0], f'{tmp_path}/x.csv')
  piped(monkeypatch, content.encode('utf-8-sig'))
  np.testing.assert_array_equal(inputs_of(made('table')[0], '-'), expected)


@pytest.mark.parametrize(
  ('content', 'part'),
  [
    (changed(columns=HEADER[1:]), 'lacks columns that the run was trained on: price; it has'),
    (changed(cells={'colour': 'rde'}), 'line 26, column colour: "rde" is none of the words of tra'),
    (changed(cells={'grade': '4'}), 'column grade: "4" is none of the words of training'),
    (changed(cells={'sold': 'maybe'}), 'column sold: "maybe" is no finite number'),
    (changed(cells={'rooms': '3 m'}), 'column rooms: "3 m" is no finite number'),
    (changed(cells={'price': 'inf'}), 'column price: "inf" is no finite number'),
    (changed(more=('rooms',)), 'has the column rooms twice'),
    (changed() + '1,"2', 'line 27 is no CSV'),
    (changed(rows=[]), 'has no rows'),
  ],
)
def test_tables_that_are_refused(made, monkeypatch, content, part):
  piped(monkeypatch, content.encode())
  assert part in refusal(made('table')[0], '-')


def test_missing_values_are_refused_where_training_refused_or_dropped_them(tmp_path, monkeypatch):
  """And no other table is evaluated by the inputs of its own."""
  (tmp_path / 'x.csv').write_text(changed(rows=TRAIN))
  config = of_table(tmp_path)
  config.data.name = f'csv:{tmp_path}/x.csv'
  config.data.table.missing = 'drop'
  workdir = runs.saved_run(tmp_path / 'run', config)
  piped(monkeypatch, changed(cells={'rooms': ''}).encode())
  said = refusal(workdir, '-')
  assert 'column rooms: is empty' in said and 'correct them, or leave the rows out' in said


def test_inputs_of_other_columns_are_not_evaluated(made, tmp_path):
  session = restore.restore_run(made('table')[0], '').session
  plain = changed(rows=TRAIN)
  for content, part in (
    (plain.replace('blue, dark', 'blue'), "words of \"colour\" are 'Red', 'blue', 'red' for"),
    (plain.replace('rooms', 'beds'), 'the column "beds" stands for "rooms"'),
    (changed(rows=TRAIN[:40]), 'missing values of "price" are'),
  ):
    (tmp_path / 'other').mkdir(exist_ok=True)
    for split in ('train', 'test'):
      (tmp_path / 'other' / f'{split}.csv').write_text(content)
    other = dataclasses.replace(session.data, test_name=f'csv:{tmp_path}/other', test_split='train')
    with pytest.raises(UserError, match=re.escape(part)):
      open_testing(other, session.spec)
  (tmp_path / 'train.csv').write_text(changed(rows=TRAIN[:40]))
  (tmp_path / 'whole.csv').write_text(plain)
  joined = f'csv:{tmp_path}/whole.csv+csv:{tmp_path}/train.csv'
  with pytest.raises(UserError, match=r'missing values of "price" are .*train\.csv and test\.csv'):
    open_whole(dataclasses.replace(session.data, name=joined, split='train'))


def test_words_of_rows_that_are_left_out_are_of_the_content(tmp_path):
  """Two tables that differ there alone have other inputs."""
  config = of_table(tmp_path)
  config.data.table.missing = 'drop'
  widths = []
  for word in ('red', 'green'):
    left_out = ['', word, 'name', '1', 'true', '1', 'class 0']
    (tmp_path / 'x.csv').write_text(changed(rows=[*TRAIN, left_out]))
    config.data.name = f'csv:{tmp_path}/x.csv'
    widths.append(open_session(config).spec.features['inputs'][0])
  assert widths == [(9,), (10,)]


def test_pictures_pass_the_resizing_of_the_run(made, tmp_path):
  workdir, files = made('pictures')
  folder = f'{files}/test'
  found = arrays(workdir, tmp_path, folder, batch_size=BATCH)
  assert_evaluated(found, workdir)
  assert 'was trained, with config.data.image.resize=pad' in refusal(
    workdir, folder, resize='center'
  )


def test_arrays_pass_the_resizing_of_the_run(made, tmp_path):
  workdir, files = made('arrays')
  images = np.load(files / 'x.npz')['x_test']
  np.savez(tmp_path / 'x.npz', x=images, more=images)
  found = arrays(workdir, tmp_path, f'{tmp_path}/x.npz', batch_size=BATCH)
  assert_evaluated(found, workdir)
  assert found['input'][3] == f'{tmp_path}/x.npz:3'
  for i, image in enumerate(images):
    PIL.Image.fromarray(image).save(tmp_path / f'{i}.png')
  assert_evaluated(arrays(workdir, tmp_path, str(tmp_path), batch_size=BATCH), workdir)


def test_rows_of_numbers_in_arrays_and_tables(made, tmp_path):
  workdir, _ = made('rows')
  _, examples = evaluated(workdir)
  np.savez(tmp_path / 'x.npz', inputs=examples['inputs'])
  found = arrays(workdir, tmp_path, f'{tmp_path}/x.npz', batch_size=BATCH)
  assert_evaluated(found, workdir)
  (tmp_path / 'x.csv').write_text('\n'.join(','.join(map(str, r)) for r in examples['inputs']))
  again = arrays(workdir, tmp_path, f'{tmp_path}/x.csv', batch_size=BATCH)
  np.testing.assert_array_equal(again['probability'], found['probability'])


@pytest.mark.parametrize(
  ('kind', 'given', 'part'),
  [
    ('arrays', dict(a=np.zeros((2, 28, 28)), b=np.zeros(2)), 'has the arrays a, b, and needs one'),
    ('arrays', dict(x=np.full((2, 28, 28), 0.5)), 'images are whole numbers from 0 to 255'),
    ('arrays', dict(x=np.zeros((2, 784))), 'has the shape (2, 784); images are'),
    ('arrays', dict(x=np.zeros((0, 28, 28))), 'holds nothing'),
    ('arrays', dict(x=np.array([None])), 'holds Python objects'),
    ('rows', dict(x=np.zeros((2, 4))), '"x" has 4 columns, and the run was trained on 3'),
    ('rows', dict(x=np.full((2, 3), np.nan)), 'row 0, column 0 of "x" is nan'),
    ('table', dict(x=np.zeros((2, 9))), 'has no names of columns'),
  ],
)
def test_arrays_that_are_refused(made, tmp_path, kind, given, part):
  np.savez(tmp_path / 'x.npz', **given)
  assert part in refusal(made(kind)[0], f'{tmp_path}/x.npz')
  (tmp_path / 'x.npz').write_bytes(b'PK no archive')
  if kind != 'table':
    assert 'x.npz cannot be read' in refusal(made(kind)[0], f'{tmp_path}/x.npz')
  assert 'names .npz files and others' in refusal(made(kind)[0], f'{tmp_path}/x.npz', 'y.png')


def test_texts_of_json_lines_are_read_by_the_key_of_the_run(made, tmp_path):
  workdir, files = made('texts')
  name = f'{files}/x.jsonl'
  lines = (files / 'x.jsonl').read_text().split('\n')
  found = arrays(workdir, tmp_path, name, batch_size=BATCH)
  assert len(found['probability']) == len(lines)
  _, examples = evaluated(workdir)
  rows = {tokens.tobytes() for tokens in found['tokens']}
  assert len(rows) > 20 and {tokens.tobytes() for tokens in examples['tokens']} <= rows
  (tmp_path / 'x.jsonl').write_text('{"body": "\\ud800"}')
  assert 'half of a surrogate pair' in refusal(workdir, f'{tmp_path}/x.jsonl')
  (tmp_path / 'x.txt').write_text('Größe', 'utf-16')
  (tmp_path / 'y.txt').write_text('Größe')
  both = arrays(workdir, tmp_path, f'{tmp_path}/x.txt', f'{tmp_path}/y.txt')
  np.testing.assert_array_equal(both['tokens'][0], both['tokens'][1])
