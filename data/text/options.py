"""The section `config.data.text`, and opening text as rows of tokens."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import errors
import files
from data.examples import Examples
from data.spec import Spec
from data.text import encoded, tokenization
from data.text.documents import Documents
from data.text.encoded import EncodedText
from data.text.tokenization import Tokenizer
from data.text.windows import Windows
from options import option

WINDOWS, DOCUMENTS = 'windows', 'documents'


@dataclasses.dataclass(frozen=True)
class Text:
  """The section `config.data.text`, which is empty for images and tables."""

  tokenizer: str = option(
    '`byte`, `character`, `bpe` or `wordpiece`, trained on the training split; or the path of a '
    "folder (a run's, or a Hugging Face one) or file that holds one."
  )
  vocabulary: int = option(
    'Size of the vocabulary that `bpe` and `wordpiece` are trained to, without specials; 0 for the '
    'others.',
    low=0,
    high=1_000_000,
  )
  specials: Sequence[str] = option(
    'Roles of special entries, whose ids follow the ordinary entries; a tokenizer that is read '
    'from a file must have them. `end` is appended to every document, `class` and `separator` '
    'enclose a document in a row of its own.',
    choices=tuple(tokenization.SPECIALS),
  )
  rows: str = option(
    '`windows` of the documents concatenated to one stream, or `documents`, one per row.',
    choices=(WINDOWS, DOCUMENTS),
  )
  length: int = option('T, the number of tokens that a model sees.', low=1)
  next_token: bool = option(
    'Whether a row holds one more, the target of the last: R = T + 1, else R = T.'
  )
  stride: int = option(
    'Tokens between the starts of training windows, all of which are full; 0 means T, 1 every '
    'offset. Evaluation always uses T, and its last window may be short.',
    low=0,
  )
  kinds: bool = option('Whether to read the kind of each token too, if the data set has it.')


def open_text(examples: Examples, options: Text, tokenizer: str, training: bool) -> Examples:
  """Opens the text of `examples` as rows of tokens, which are encoded, or read from the cache.

  A row has `tokens` int32 [R], `length` (number of real tokens; the rest are `pad`, or 0 without
  one), `kind` int32 [R] if requested (-1 for specials and padding), and if it is a document `label`
  and the other features of the data set.

  Args:
    examples: examples with the feature `text`.
    options: the section of the config.
    tokenizer: the run's tokenizer, as JSON; '' to make one by `options`, from `examples`.
    training: whether `examples` are the training split, the only one to make a tokenizer from.

  Raises:
    UserError: a role is named twice, or the data set has no text or no kinds.
  """
  _check(options, examples.spec)
  if tokenizer:
    encoder = tokenization.from_json(tokenizer)
  elif training:
    encoder = _make_tokenizer(examples, options)
    tokenizer = encoder.to_json()
  else:
    raise ValueError('a tokenizer is made from the training split, not from another one')
  for role in options.specials:
    if role not in encoder.specials:
      raise errors.UserError(
        f'config.data.text.specials: the tokenizer has no {tokenization.SPECIALS[role]} for '
        f'"{role}", only {", ".join(encoder.specials) or "none"}; leave it out, or use a tokenizer '
        'that has it'
      )
  spec = examples.spec._replace(tokenizer=tokenizer)
  text = encoded.encode(examples, encoder, spec.tokenizer_key, options.kinds)
  return ROWS[options.rows](text, spec, options, encoder, training, examples.stamp)


def _make_tokenizer(examples: Examples, options: Text) -> Tokenizer:
  """Trains the tokenizer that `options` names, or reads it from a file."""
  if options.tokenizer not in tokenization.KINDS:
    return _read(options)
  return encoded.train_tokenizer(examples, options.tokenizer, options.vocabulary, options.specials)


def _read(options: Text) -> Tokenizer:
  known = tokenization.KINDS
  if not options.tokenizer or not files.path(options.tokenizer).exists():
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
  try:
    return tokenization.read(options.tokenizer)
  except errors.UserError as error:
    raise errors.UserError(f'config.data.text.tokenizer={options.tokenizer}: {error}') from error


def _windows(
  text: EncodedText, spec: Spec, options: Text, tokenizer: Tokenizer, training: bool, stamp: str
) -> Examples:
  return Windows(
    text,
    spec,
    row=options.length + options.next_token,
    stride=(training and options.stride) or options.length,
    drop_remainder=training,
    next_token=options.next_token,
    pad=tokenizer.specials.get('pad', 0),
    stamp=stamp,
  )


def _documents(
  text: EncodedText, spec: Spec, options: Text, tokenizer: Tokenizer, training: bool, stamp: str
) -> Examples:
  row = options.length + options.next_token
  specials, template = tokenizer.specials, tokenizer.template
  return Documents(text, spec, row=row, specials=specials, stamp=stamp, template=template)


ROWS: Mapping[str, Callable[..., Examples]] = {WINDOWS: _windows, DOCUMENTS: _documents}


def _check(options: Text, spec: Spec) -> None:
  if 'text' not in spec.features:
    raise errors.UserError(
      f'config.data.text is for text, and data set {spec.name} has none, only '
      f'{", ".join(spec.features)}; choose another data set, or another config'
    )
  tokenization.check_specials(options.specials)
  if options.stride and options.rows == DOCUMENTS:
    raise errors.UserError(
      f'config.data.text.stride={options.stride} has no effect with config.data.text.rows='
      f'{DOCUMENTS}; set it to 0, or rows to {WINDOWS}'
    )
  if options.kinds and 'kind' not in spec.features:
    raise errors.UserError(
      f'config.data.text.kinds: data set {spec.name} does not give the kinds of its tokens; choose '
      'one that does, such as python_stdlib, or set it to False'
    )
