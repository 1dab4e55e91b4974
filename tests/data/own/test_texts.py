"""Texts: files, lines, classes, and what is no text."""

import itertools
import json

import pytest

from errors import UserError
from tests.data.own.files_of_ours import opened


def texts(name, splits=('train', 'validation', 'test'), **options):
  """{split: its texts, sorted}."""
  found = {}
  for split in splits:
    examples = opened(name, split, **options)
    found[split] = sorted(examples.read(range(len(examples)))['text'])
  return found


def test_one_file_is_cut_at_line_ends(tmp_path):
  text = ''.join(f'{i}: Grüße\n' for i in range(1000))
  (tmp_path / 'a.txt').write_text(text)
  found = texts(f'text:{tmp_path}/a.txt')
  parts = [found[split][0] for split in ('train', 'validation', 'test')]
  assert ''.join(parts) == text and all(part.endswith('\n') for part in parts)
  assert [round(len(part) / len(text), 2) for part in parts] == [0.8, 0.1, 0.1]


def test_folders_of_documents_have_classes_and_splits(tmp_path):
  written = {}
  for name in ('good', 'bad'):
    (tmp_path / name / 'deep').mkdir(parents=True)
    for i in range(30):
      written[f'{name} {i}'] = name
      (tmp_path / name / 'deep' / f'{i}.txt').write_text(f'{name} {i}')
  found = texts(f'text:{tmp_path}')
  assert sorted(itertools.chain(*found.values())) == sorted(written) and all(found.values())
  train = opened(f'text:{tmp_path}')
  read = train.read(range(len(train)))
  for text, label in zip(read['text'], read['label'], strict=True):
    assert train.spec.class_names[label] == written[text]


def test_files_named_like_splits(tmp_path):
  for split in ('train', 'test'):
    (tmp_path / f'{split}.txt').write_text(split)
  assert texts(f'text:{tmp_path}', ('train', 'test')) == {'train': ['train'], 'test': ['test']}


def test_jsonl_with_keys(tmp_path):
  lines = [json.dumps({'body': f'text {i}\n', 'stars': i % 2}) for i in range(50)]
  (tmp_path / 'a.jsonl').write_text('\n\n'.join(lines))
  jsonl = dict(text='body', label='stars')
  found = texts(f'text:{tmp_path}/a.jsonl', jsonl=jsonl)
  assert sorted(itertools.chain(*found.values())) == sorted(f'text {i}\n' for i in range(50))
  train = opened(f'text:{tmp_path}/a.jsonl', jsonl=jsonl)
  read = train.read(range(len(train)))
  assert all(int(t.split()[1]) % 2 == label for t, label in zip(read['text'], read['label']))


def test_odd_bytes_are_named_and_marks_are_read(tmp_path, capsys):
  (tmp_path / 'a.txt').write_bytes('\ufeffmarked'.encode())
  (tmp_path / 'b.txt').write_bytes('sixteen'.encode('utf-16'))
  (tmp_path / 'c.txt').write_bytes(b'caf\xe9')
  (tmp_path / 'd.txt').write_bytes(b' \n')
  for i in range(20):
    (tmp_path / f'{i}.txt').write_text(f'nul \0 {i}')
  found = [*itertools.chain(*texts(f'text:{tmp_path}').values())]
  assert {'marked', 'sixteen', 'nul \0 3'} <= {*found} and len(found) == 22
  printed = capsys.readouterr().err
  assert 'documents: 2 (listed in' in printed and 'c.txt is not UTF-8 at byte 3' in printed
  assert 'd.txt is empty' in printed


@pytest.mark.parametrize(
  ('lines', 'jsonl', 'message'),
  [
    ('{"text": "a"}\n{"body": "b"}\n', {}, r'line 2 of a.jsonl has no key "text", only body'),
    ('{"text": "a"}\n{oops\n', {}, 'line 2 of a.jsonl is no JSON'),
    ('"text"\n', {}, 'line 1 of a.jsonl is no JSON object'),
    ('{"text": 3}\n', {}, 'line 1 of a.jsonl: "text" is 3, no text'),
    ('{"text": "a", "c": 1.5}\n', dict(label='c'), '"c" is 1.5, and a class is a word'),
    ('{"text": "\\ud800"}\n', {}, 'half of a surrogate pair'),
    ('\n\n', {}, 'has no text that can be read'),
  ],
)
def test_jsonl_that_is_refused(tmp_path, lines, jsonl, message):
  (tmp_path / 'a.jsonl').write_text(lines)
  with pytest.raises(UserError, match=message):
    opened(f'text:{tmp_path}/a.jsonl', jsonl=jsonl)


def test_a_key_that_is_the_text_and_its_class_is_refused(tmp_path):
  with pytest.raises(ValueError, match='label=body is the key of the text too'):
    opened(f'text:{tmp_path}', jsonl=dict(text='body', label='body'))


def test_other_files_are_refused(tmp_path):
  (tmp_path / 'a.pdf').write_bytes(b'x')
  with pytest.raises(UserError, match=r'has no .txt or .jsonl file, only a.pdf'):
    opened(f'text:{tmp_path}')
  (tmp_path / 'a.txt').write_text('x' * 100)
  with pytest.raises(UserError, match=r'config\.data\.jsonl has no effect'):
    opened(f'text:{tmp_path}', jsonl=dict(label='c'))
