"""Text as rows of tokens: the options of a config, and the examples that they describe."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import errors
import files
from data.examples import Examples
from data.spec import Spec
from data.text import encoded, tokenization
from data.text.documents import Documents
from data.text.encoded import Encoded
from data.text.tokenization import Tokenizer
from data.text.windows import Windows
from options import option

WINDOWS, DOCUMENTS = 'windows', 'documents'


@dataclasses.dataclass(frozen=True)
class Text:
  """The section `config.data.text`, which is empty for images and tables."""

  tokenizer: str = option(
    '`byte`, `character`, `bpe` or `wordpiece`, made from the training split; or the path of a '
    "folder (a run's, or a Hugging Face one) or file that holds one."
  )
  vocabulary: int = option(
    'Entries that `bpe` and `wordpiece` are trained to, specials not counted; 0 for the others.',
    low=0,
  )
  specials: Sequence[str] = option(
    'Roles that get an id after the ordinary entries; a tokenizer that is read must have them. '
    '`end` is put after every document of a stream, `class` and `separator` before and after one '
    'in a row of its own.',
    choices=tuple(tokenization.SPECIALS),
  )
  rows: str = option(
    '`windows` of the documents joined to one stream, or `documents`, one a row.',
    choices=(WINDOWS, DOCUMENTS),
  )
  length: int = option('T, tokens that a model sees.', low=1)
  next_token: bool = option(
    'Whether a row holds one more, the target of the last: R = T + 1, else R = T.'
  )
  stride: int = option(
    'Tokens between the starts of training windows, all of which are full; 0 is T, 1 every offset. '
    'Evaluation always uses T, and its last window may be short.',
    low=0,
  )
  kinds: bool = option('Whether to give the kind of each token too, where the data set has it.')


def open_text(examples: Examples, options: Text, tokenizer: str, training: bool) -> Examples:
  """Opens the text of `examples` as rows of tokens, encoded now or taken from the cache.

  A row has `tokens` int32 [R], `length` (its real tokens; `pad` or 0 comes after them), `kind`
  int32 [R] if requested (-1 where there is none), and of documents `label` and the other features
  of the data set.

  Args:
    examples: with the feature `text`.
    options: the section of the config.
    tokenizer: JSON of the run's; '' to make it by `options`, from `examples`.
    training: whether `examples` are trained on. Only these may make a tokenizer.

  Raises:
    UserError: a role is named twice, or the data set lacks text or what is requested of it.
  """
  _check(options, examples.spec)
  if tokenizer:
    made = tokenization.from_json(tokenizer)
  elif training:
    made = _make(examples, options)
    tokenizer = made.to_json()
  else:
    raise ValueError('a tokenizer is made from the training split, not from the one evaluated on')
  for role in options.specials:
    if role not in made.specials:
      raise errors.UserError(
        f'config.data.text.specials: the tokenizer has no {tokenization.SPECIALS[role]} for '
        f'"{role}", only {", ".join(made.specials) or "none"}; leave it out, or use a tokenizer '
        'that has it'
      )
  spec = examples.spec._replace(tokenizer=tokenizer)
  found = encoded.encode(examples, made, spec.tokenizer_key, options.kinds)
  return ROWS[options.rows](found, spec, options, made, training, examples.stamp)


def _make(examples: Examples, options: Text) -> Tokenizer:
  if options.tokenizer not in tokenization.KINDS:
    return _read(options)
  made = options.tokenizer, options.vocabulary, options.specials
  return encoded.train_tokenizer(examples, *made)


def _read(options: Text) -> Tokenizer:
  known = tokenization.KINDS
  if not files.path(options.tokenizer).exists():
    raise errors.UserError(
      f'config.data.text.tokenizer={options.tokenizer} is no tokenizer'
      f'{errors.nearest(options.tokenizer, known)}; there are {", ".join(known)}, and folders or '
      'files that hold one'
    )
  if options.vocabulary:
    raise errors.UserError(
      f'config.data.text.vocabulary={options.vocabulary} is for tokenizers that are trained, and '
      f'{options.tokenizer} holds one; set it to 0'
    )
  return tokenization.read(options.tokenizer)


def _windows(
  found: Encoded, spec: Spec, options: Text, tokenizer: Tokenizer, training: bool, stamp: str
) -> Examples:
  return Windows(
    found,
    spec,
    row=options.length + options.next_token,
    stride=(training and options.stride) or options.length,
    whole=training,
    predicted=options.next_token,
    pad=tokenizer.specials.get('pad', 0),
    stamp=stamp,
  )


def _documents(
  found: Encoded, spec: Spec, options: Text, tokenizer: Tokenizer, training: bool, stamp: str
) -> Examples:
  row = options.length + options.next_token
  return Documents(found, spec, row=row, specials=tokenizer.specials, stamp=stamp)


ROWS: Mapping[str, Callable[..., Examples]] = {WINDOWS: _windows, DOCUMENTS: _documents}


def _check(options: Text, spec: Spec) -> None:
  if 'text' not in spec.features:
    raise errors.UserError(
      f'config.data.text is for text, and data set {spec.name} has none, only '
      f'{", ".join(spec.features)}; choose another data set, or another config'
    )
  tokenization.check_specials(options.specials)
  if options.kinds and 'kind' not in spec.features:
    raise errors.UserError(
      f'config.data.text.kinds: data set {spec.name} does not give the kinds of its tokens; choose '
      'one that does, such as python_stdlib, or set it to False'
    )
