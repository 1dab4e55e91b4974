"""The embedded text: real, whole, split by a hash, and of the kinds that Python says."""

import io
import keyword
import pathlib
import sys
import sysconfig
import token
import tokenize

import numpy as np
import pytest

import errors
from data import source
from data.selection import ClassSubset, Joined
from data.tfds.builders import names, python_stdlib

SPLITS = ('train', 'validation', 'test')


def kinds_by_hand(text):
  starts, kinds = python_stdlib.kinds_of(text)
  raw = text.encode()
  pieces = [raw[a:b].decode() for a, b in zip(starts, [*starts[1:], len(raw)])]
  return [(piece, python_stdlib.KINDS[kind]) for piece, kind in zip(pieces, kinds)]


def test_kinds_of_a_line():
  assert kinds_by_hand('if é == 1:  # 日本\n\tx = "a" "b"\n') == [
    ('if', 'keyword'),
    (' ', 'whitespace'),
    ('é', 'name'),
    (' ', 'whitespace'),
    ('==', 'operator'),
    (' ', 'whitespace'),
    ('1', 'number'),
    (':', 'operator'),
    ('  ', 'whitespace'),
    ('# 日本', 'comment'),
    ('\n\t', 'whitespace'),
    ('x', 'name'),
    (' ', 'whitespace'),
    ('=', 'operator'),
    (' ', 'whitespace'),
    ('"a"', 'string'),
    (' ', 'whitespace'),
    ('"b"', 'string'),
    ('\n', 'whitespace'),
  ]


def test_kinds_over_several_lines_and_at_the_end():
  assert kinds_by_hand('"""a\n é\n"""+\\\n1') == [
    ('"""a\n é\n"""', 'string'),
    ('+', 'operator'),
    ('\\\n', 'whitespace'),
    ('1', 'number'),
  ]
  assert kinds_by_hand('') == []
  assert kinds_by_hand('\n\n') == [('\n\n', 'whitespace')]


def test_an_f_string_is_one_string():
  first, second = """f'{{é}} {x if y else f"{z:>{w}}"!r}'""", 'f"""a\n{b}"""'
  assert kinds_by_hand(f'{first} + {second}') == [
    (first, 'string'),
    (' ', 'whitespace'),
    ('+', 'operator'),
    (' ', 'whitespace'),
    (second, 'string'),
  ]


@pytest.mark.parametrize('text', ['x = $\n', 'x = ?\n', '"""open', 'if x:\n    a\n  b\n'])
def test_what_is_no_python_is_left_out(text):
  with pytest.raises((SyntaxError, tokenize.TokenError)):
    python_stdlib.kinds_of(text)


@pytest.fixture(scope='module')
def splits(library_root):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('ATELIER_CACHE', str(library_root / 'unused'))
    return {s: source.open_source('python_stdlib', s, str(library_root)) for s in SPLITS}


def test_the_files_are_those_of_this_python(splits):
  root = pathlib.Path(sysconfig.get_paths()['stdlib'])
  found = {text for part in splits.values() for text in part.read(range(len(part)))['text']}
  assert (root / 'heapq.py').read_text() in found and (
    root / 'json/decoder.py'
  ).read_text() in found
  assert not any('left = out' in text or 'is no Python' in text for text in found)
  assert len(found) == 9 + sum(
    len(list((root / folder).glob('*.py'))) for folder in ('json', 'tomllib', 'wsgiref')
  )
  spec = splits['train'].spec
  assert spec.features['text'] == ((), 'string') and spec.class_names == python_stdlib.KINDS
  version = '.'.join(map(str, sys.version_info[:3]))
  assert splits['train']._folder.full_name == f'python_stdlib/{version}'


def test_every_file_is_in_one_split_by_its_path(splits):
  import tensorflow_datasets as tfds

  folder = splits['train']._folder.folder
  paths = {s: tfds.builder_from_directory(folder).as_data_source(s) for s in SPLITS}
  for split, rows in paths.items():
    for row in rows:
      assert python_stdlib.split_of(row['path'].decode()) == split
  counts = [python_stdlib.split_of(f'{i}.py') for i in range(4000)]
  assert [round(counts.count(split) / 4000, 2) for split in SPLITS] == [0.9, 0.05, 0.05]


def keywords_outside_of_strings(source):
  """How many there are; Python 3.12 and later give the tokens within an f-string, too."""
  depth = number = 0
  for found in tokenize.tokenize(io.BytesIO(source).readline):
    name = token.tok_name[found.type]
    depth += name.endswith('STRING_START') - name.endswith('STRING_END')
    number += not depth and found.type == token.NAME and keyword.iskeyword(found.string)
  return number


def test_kinds_are_those_of_tokenize(splits):
  texts = splits['train'].read(range(len(splits['train'])))
  for text, starts, kinds in zip(texts['text'], texts['kind_start'], texts['kind']):
    assert starts[0] == 0 and (np.diff(starts) > 0).all() and (np.diff(kinds) != 0).all()
    raw = text.encode()
    assert starts[-1] < len(raw)
    of_byte = np.repeat(kinds, np.diff([*starts, len(raw)]))
    wanted = keywords_outside_of_strings(raw)
    at_keyword = np.diff((of_byte == python_stdlib.KINDS.index('keyword')).astype(int), prepend=0)
    assert (at_keyword == 1).sum() == wanted
    blank = np.frombuffer(raw, np.uint8)[of_byte == python_stdlib.KINDS.index('whitespace')]
    assert not bytes(blank).strip(b' \t\n\f\\')


def test_texts_are_read_at_random_and_joined(splits):
  train, test = splits['train'], splits['validation']
  some = train.read([2, 0])
  assert some['text'][1] == train.read([0])['text'][0] and some['text'].dtype == object
  both = Joined([train, test])
  last = both.read([len(train), 1])
  assert last['text'].tolist() == [test.read([0])['text'][0], train.read([1])['text'][0]]
  np.testing.assert_array_equal(last['kind'][1], train.read([1])['kind'][0])
  np.testing.assert_array_equal(both.column('text')[:3], train.column('text')[:3])
  with pytest.raises(errors.UserError, match='has no classes'):
    ClassSubset(train, (1,))


def test_left_out(tmp_path):
  kept = ('a.py', 'b/c.py', 'b/testing.py', 'test_x.py')
  left = ('a.txt', 'test/a.py', 'b/tests/c.py', 'encodings/x.py', 'config-3.11-x86/a.py',
          '_sysconfigdata__linux.py', 'site-packages/d/e.py', 'pydoc_data/topics.py')  # fmt: skip
  for name in kept + left:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('')
  found = {path.as_posix() for path in python_stdlib.sources(tmp_path)}
  assert found == set(kept)


def test_a_python_without_sources(tmp_path, monkeypatch):
  monkeypatch.setattr(sysconfig, 'get_paths', lambda: {'stdlib': str(tmp_path / 'none')})
  with pytest.raises(errors.UserError, match='holds no sources'):
    source.open_source('python_stdlib', 'train', str(tmp_path))


def test_names_have_the_class_in_which_they_are_more_frequent():
  lists = {'female': {'Kim': 0.2, 'Ann': 0.5, 'Kris': 0.1}, 'male': {'Kim': 0.1, 'Kris': 0.1}}
  lists['male']['Bob'] = 0.3
  assert names.labels_of_names(lists) == {'Ann': 'female', 'Bob': 'male', 'Kim': 'female'}
  real = names.read_lists()
  assert len(real['female']) == 4275 and len(real['male']) == 1219
  assert real['male']['James'] == 3.318 and real['female']['Mary'] == 2.629


def test_names(names_root):
  parts = {split: source.open_source('names', split, str(names_root)) for split in SPLITS}
  read = {split: part.read(range(len(part))) for split, part in parts.items()}
  assert {split: len(part) for split, part in parts.items()} == {
    'train': 4137,
    'validation': 511,
    'test': 512,
  }
  every = np.concatenate([values['text'] for values in read.values()])
  assert len(set(every)) == 5160
  labels = names.labels_of_names(names.read_lists())
  for split, values in read.items():
    for name, label in zip(values['text'], values['label']):
      assert names.CLASSES[label] == labels[name] and names.split_of(name) == split
  assert parts['test'].spec.class_names == ('female', 'male')
  assert ClassSubset(parts['test'], (1,)).read([0])['label'].tolist() == [0]


def test_text_that_is_not_utf8(names_root, monkeypatch):
  part = source.open_source('names', 'test', str(names_root))
  examples = part._examples
  monkeypatch.setattr(
    part, '_examples', lambda *of: [{**one, 'text': b'\xff'} for one in examples(*of)]
  )
  with pytest.raises(errors.UserError, match='text of example 7 of names test is not UTF-8'):
    part.read([7])


def test_text_of_a_stock_data_set(shakespeare_root):
  part = source.open_source('tiny_shakespeare', 'validation+test', str(shakespeare_root))
  assert len(part) == 2 and part.spec.features == {'text': ((), 'string')}
  assert part.spec.num_classes == 0
  assert part.read([0])['text'][0].startswith('?\n\nGREMIO:') and len(part.read([1])['text'][0])
