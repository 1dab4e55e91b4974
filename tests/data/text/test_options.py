"""Text by its options: read, encoded once, kept, and every mistake answered."""

import dataclasses

import numpy as np
import pytest

import errors
from data import folders, source
from data.eval_batches import batches_in_order
from data.selection import Fold
from data.text import options, tokenization

OPTIONS = options.Text('byte', 0, (), 'windows', 32, True, 0, False)
FRAME = ('class', 'separator', 'pad')


def opened(examples, tokenizer='', training=True, **changed):
  return options.open_text(examples, dataclasses.replace(OPTIONS, **changed), tokenizer, training)


def test_windows_of_a_stream_with_ends(names):
  examples = names()
  made = opened(examples, specials=('end',), length=64)
  tokenizer = tokenization.from_json(made.spec.tokenizer)
  every = examples.read(range(len(examples)))['text']
  whole = ''.join(f'{name}<|endoftext|>' for name in every)
  read = tokenizer.decode(made.read(range(len(made)))['tokens'][:, :64].reshape(-1))
  assert whole.startswith(read)
  assert len(made) == (sum(map(len, every)) + len(every) - 65) // 64 + 1
  assert (made.spec.num_classes, made.spec.class_names) == (0, ())


def test_every_token_of_the_split_evaluated_on_is_a_target_once(names):
  tokenizer = opened(names(), specials=('end',)).spec.tokenizer
  made = opened(names('test'), tokenizer, False, specials=('end',), stride=1)
  targets = []
  for batch in batches_in_order(made, 40, range(40)):
    real = (np.arange(33) < batch['length'][:, None]) & batch['mask'][:, None]
    targets.append(batch['tokens'][:, 1:][real[:, 1:]])
  every = names('test').read(range(512))['text']
  wanted = np.concatenate([[*name.encode(), 256] for name in every])
  np.testing.assert_array_equal(np.concatenate(targets), wanted[1:])


def test_documents_with_their_labels(names):
  examples = names('test')
  tokenizer = tokenization.train('byte', [], 0, FRAME)
  made = opened(examples, tokenizer.to_json(), False, rows='documents', next_token=False)
  got, wanted = made.read([5, 0, 511]), examples.read([5, 0, 511])
  np.testing.assert_array_equal(got['label'], wanted['label'])
  for row, length, name in zip(got['tokens'], got['length'], wanted['text']):
    assert tokenizer.decode(row) == f'[CLS]{name}[SEP]' and length == len(name) + 2
  assert made.spec.n == 512 and made.spec.class_names == ('female', 'male')
  assert made.spec.features['tokens'] == ((32,), 'int32')
  assert made.load()['tokens'].shape == (512, 32)


@pytest.mark.parametrize('rows', ['windows', 'documents'])
@pytest.mark.parametrize(('kind', 'size'), [('byte', 0), ('bpe', 600), ('wordpiece', 600)])
def test_kinds_are_those_of_python(library, kind, size, rows):
  text = options.Text(kind, size, ('end', 'pad', 'unknown'), rows, 300, True, 0, True)
  made = options.open_text(library, text, '', True)
  assert made.spec.num_classes == 7 and made.spec.features['kind'] == ((301,), 'int32')
  numbers = {name: i for i, name in enumerate(made.spec.class_names)}
  tokenizer = tokenization.from_json(made.spec.tokenizer)
  got = made.read(range(len(made)))
  seen = {}
  for id, kind_ in set(zip(got['tokens'].reshape(-1).tolist(), got['kind'].reshape(-1).tolist())):
    seen.setdefault(tokenizer.decode([id]).strip(), set()).add(kind_)
  quoted = {numbers['string'], numbers['comment']}
  assert {numbers['operator']} <= seen['('] <= {numbers['operator'], *quoted}
  if kind != 'byte':
    # A name may start with either word, and be cut behind it.
    words = {numbers['name'], *quoted}
    assert {numbers['keyword']} <= seen['return'] <= {numbers['keyword'], *words}
    assert {numbers['name']} <= seen['self'] <= words
  if rows == 'windows':
    assert seen['<|endoftext|>'] == {-1}
  else:
    assert (got['kind'][np.arange(301) >= got['length'][:, None]] == -1).all()


def test_what_the_run_has_is_used(names):
  mine = tokenization.train('character', ['!', *names().read(range(4137))['text']], 0, ())
  other = options.open_text(names(), dataclasses.replace(OPTIONS, tokenizer='character'), '', True)
  made = opened(names(), mine.to_json())
  assert made.spec.tokenizer == mine.to_json()
  assert made.spec.identity != other.spec.identity
  first = names().read([0])['text'][0]
  np.testing.assert_array_equal(made.read([0])['tokens'][0][: len(first)], mine.encode(first))


def test_a_tokenizer_by_its_path(names, tmp_path):
  mine = tokenization.train('byte', [], 0, ('mask', 'end'))
  (tmp_path / 'tokenizer.json').write_text(mine.to_json())
  text = dataclasses.replace(OPTIONS, tokenizer=str(tmp_path), specials=('end',))
  assert options.open_text(names(), text, '', True).spec.tokenizer == mine.to_json()


def test_folds_of_documents(names):
  parts = [Fold(names('test'), 1, 4, held_out) for held_out in (True, False)]
  held, rest = (opened(part, rows='documents') for part in parts)
  assert (len(held), len(rest)) == (128, 384)
  first = names('test').read([128])['text'][0].encode()
  assert bytes(held.read([0])['tokens'][0][: len(first)].astype(np.uint8)) == first


def test_nanogpts_data(shakespeare_root):
  shakespeare = lambda split: source.open_source('tiny_shakespeare', split, str(shakespeare_root))  # noqa: E731
  text = options.Text('character', 0, (), 'windows', 64, True, 1, False)
  train = options.open_text(shakespeare('train'), text, '', True)
  tokenizer = tokenization.from_json(train.spec.tokenizer)
  # prepare.py's figures, and train.py's number of places that a window may start at.
  assert tokenizer.size == 65 and len(train) == 1_003_854 - 64
  last = options.open_text(shakespeare('validation+test'), text, train.spec.tokenizer, False)
  assert len(last) == -(-(111_540 - 1) // 64)
  got = last.read(range(len(last)))
  assert (got['length'] - 1).sum() == 111_540 - 1
  # The second half of the validation text follows the first.
  parts = [shakespeare(split).read([0])['text'][0] for split in ('validation', 'test')]
  tokens = got['tokens'][:, :64].reshape(-1)[: 111_540 - 1]
  assert tokenizer.decode(tokens) == ''.join(parts)[:-1]


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'tokenizer': 'bit'}, r'tokenizer=bit is no tokenizer \(did you mean "byte"\?\)'),
    ({'tokenizer': '/'}, r'config\.data\.text\.tokenizer=/: / holds no tokenizer'),
    ({'tokenizer': ''}, r'config\.data\.text\.tokenizer= is no tokenizer'),
    ({'tokenizer': '/', 'vocabulary': 9}, 'vocabulary=9 is for tokenizers that are trained'),
    ({'vocabulary': 9}, 'vocabulary=9 .*set it to 0 for byte'),
    ({'specials': ('ende',)}, r'"ende" is no role .*\(did you mean "end"\?\)'),
    ({'length': 10**6}, 'tokens, fewer than the 1,000,001 of one window'),
    ({'kinds': True}, 'names does not give the kinds .*python_stdlib'),
  ],
)
def test_mistakes_are_named(names, changed, message):
  with pytest.raises(errors.UserError, match=message):
    options.open_text(names(), dataclasses.replace(OPTIONS, **changed), '', True)


def test_specials_that_a_given_tokenizer_lacks(names):
  given = tokenization.train('byte', [], 0, ('pad',)).to_json()
  with pytest.raises(errors.UserError, match=r'has no \[MASK\] for "mask", only pad'):
    opened(names(), given, specials=('pad', 'mask'))


def test_data_without_text(mnist5k):
  with pytest.raises(errors.UserError, match='mnist5k has none, only image, label'):
    opened(mnist5k)


def test_characters_that_only_the_test_split_has(names):
  given = tokenization.train('character', ['abc'], 0, ()).to_json()
  with pytest.raises(errors.UserError, match='the vocabulary of 3 characters lacks'):
    opened(names('test'), given, False)
  left = [path.suffix for path in (folders.cache_dir() / 'text').iterdir()]
  assert left == ['.lock'], 'a lock, and no arrays'
