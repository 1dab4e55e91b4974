"""Text from a run of a language model: on the terminal as it comes, and in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import files
from data.text import tokenization
from engine import runtime
from engine.report import BETWEEN_TEXTS
from errors import UserError
from objectives.base import numbered_keys, stream_key

if TYPE_CHECKING:
  from commands.sample_run import Opened

# Tokens per device call: few enough that text appears as it is made.
_STRIDE = 8
# Texts made side by side, at most: bounds the memory whatever --num is.
_CHUNK = 64
# Tokens where neither the user nor the model gives a bound.
_UNBOUND = 256


# Tokens before the new ones that are decoded again, since a tokenizer's spacing depends on them.
_OVERLAP = 4
# Bytes that are no whole character decode to this one.
_INCOMPLETE = '\ufffd'


class Text(NamedTuple):
  """One text: its tokens int32 [T], up to the end of its document, and the text they decode to."""

  tokens: np.ndarray
  text: str


def generate_text(opened: Opened) -> None:
  """Prints texts, one alone as it comes, and writes them where a file is requested.

  Raises:
    UserError: a value out of range, a prompt that the vocabulary cannot express, or a file that has
      another ending than .txt and .npz or cannot be written.
  """
  out = opened.request.out
  _refuse_without_effect(opened)
  if out is not None:
    if Path(out).suffix not in ('.txt', '.npz'):
      raise UserError(f'--out={out} must end in .txt (the text) or .npz (its tokens)')
    files.prepare_out(out)
  made = [*texts(opened, sys.stdout)]
  if out is not None:
    _save(files.path(out), made, opened.restored.step, opened.seed)
    print(f'{len(made)} texts, step {opened.restored.step} of {opened.request.workdir}: {out}')


def _refuse_without_effect(opened: Opened) -> None:
  """Refuses what is given for sampling where the most likely token is always taken."""
  if opened.options['temperature']:
    return
  given = {'seed': opened.seed, **opened.options}
  for name, neutral in (('seed', 0), ('top_k', 0), ('top_p', 1.0)):
    if given[name] != neutral:
      raise UserError(
        f'--{name}={given[name]} has no effect with --temperature=0, which takes the most likely '
        'token; leave one of them out'
      )


def texts(opened: Opened, screen: Any) -> Iterator[Text]:
  """Yields the texts; text i is the same for a seed whatever their number is.

  Args:
    opened: the run and the options of its sampler.
    screen: a file, such as standard output, that shows them: one text alone as it grows.

  Raises:
    UserError: as `generate_text`.
  """
  num = opened.request.num or 1
  session = opened.restored.session
  tokenizer = tokenization.from_json(session.spec.tokenizer)
  prompt, hidden, length = _prompt(opened, tokenizer)
  program = _Program(opened, length)
  for first in range(0, num, _CHUNK):
    numbers = np.arange(first, min(first + _CHUNK, num))
    decoders = [Decoder(tokenizer, hidden) for _ in numbers]
    for tokens in program.growing(prompt, numbers):
      pieces = [decoder.feed(row) for decoder, row in zip(decoders, tokens)]
      if num == 1:
        screen.write(pieces[0])
        screen.flush()
      if all(decoder.ended for decoder in decoders):
        break
    for number, decoder in zip(numbers, decoders):
      text = decoder.finish()
      shown = decoder.rest() if num == 1 else text.text
      screen.write(shown + ('\n' if number == num - 1 else BETWEEN_TEXTS))
      screen.flush()
      yield text


def _prompt(opened: Opened, tokenizer: tokenization.Tokenizer) -> tuple[np.ndarray, int, int]:
  """The tokens int32 [P] that every text begins with, how many of them are not shown, and the
  length of a text.

  Raises:
    UserError: the prompt leaves no token to sample, or the vocabulary cannot express it.
  """
  objective = opened.restored.session.objective
  before = [] if tokenizer.template is None else tokenizer.template[0]
  prompt = np.concatenate([before, tokenizer.encode(opened.options['prompt'])]).astype(np.int32)
  hidden = len(before)
  if not len(prompt):
    prompt = np.asarray(objective.document_start, np.int32)
    hidden = int('start' in tokenizer.specials)
  length = opened.options['length'] or objective.sampler.context or _UNBOUND
  if len(prompt) >= length:
    raise UserError(
      f'the prompt has {len(prompt)} tokens and --length={length} counts them too; give a longer '
      '--length or a shorter --prompt'
    )
  return prompt, hidden, length


class _Program:
  """The compiled decoding of a sampler."""

  def __init__(self, opened: Opened, length: int):
    session, self._opened, self._length = opened.restored.session, opened, length
    sampler = session.objective.sampler
    settings = runtime.compiler_options(session.platform, determinism=session.train.determinism)
    self._key = stream_key(jax.random.key(opened.seed), 'sample')
    self._start = jax.jit(
      sampler.start, static_argnums=4, compiler_options=session.determinism_options
    )
    self._advance = jax.jit(sampler.advance, donate_argnums=1, compiler_options=settings)
    kinds = {int: jnp.int32, float: jnp.float32}
    # The prompt and the length are in the state; what is left belongs to every token.
    self._options = {
      name: kinds[sampler.options[name].type](value)
      for name, value in opened.options.items()
      if name not in ('prompt', 'length')
    }

  def growing(self, prompt: np.ndarray, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the tokens int32 [B, position] of all rows, a few more each time."""
    variables = self._opened.variables
    prompts = jnp.broadcast_to(jnp.asarray(prompt, jnp.int32), (len(numbers), len(prompt)))
    lengths = jnp.full(len(numbers), len(prompt))
    keys = numbered_keys(self._key, jnp.asarray(numbers))
    state = self._start(variables, prompts, lengths, keys, self._length)
    position = len(prompt)
    while position < self._length:
      state = self._advance(variables, state, jnp.int32(_STRIDE), **self._options)
      # All rows have the same prompt, so they stand at the same position.
      position = int(state.positions[0])
      # Cut here and not on the device, where every length would be compiled anew.
      yield np.asarray(state.tokens)[:, :position]


class Decoder:
  """Decodes one growing text, only what is new each time.

  The text ends at the first end token after its start.

  Args:
    tokenizer: of the run.
    hidden: number of tokens in front of the text that are no part of it.
  """

  def __init__(self, tokenizer: tokenization.Tokenizer, hidden: int = 0):
    self._tokenizer, self._hidden = tokenizer, hidden
    self._tokens: list[int] = []
    self._read = 0  # tokens of the row that were looked at
    self._shown = 0  # tokens whose text was returned
    self.ended = False

  def feed(self, row: np.ndarray) -> str:
    """Takes the row's tokens int32 [position] so far; returns the text they add."""
    for place in range(max(self._read, self._hidden), len(row)):
      token = int(row[place])
      is_end = token in self._tokenizer.ends
      self.ended = self.ended or (is_end and place > 0)
      if not is_end and not self.ended:
        self._tokens.append(token)
    self._read = len(row)
    return self._grown(is_whole=False)

  def rest(self) -> str:
    """Returns what `feed` held back: a text may end with bytes that are no whole character."""
    return self._grown(is_whole=True)

  def finish(self) -> Text:
    """Returns the whole text."""
    tokens = np.asarray(self._tokens, np.int32)
    return Text(tokens, self._tokenizer.decode(tokens))

  def _grown(self, is_whole: bool) -> str:
    """The text of the tokens that are not shown yet.

    It is '' while a character's bytes are missing, or later tokens can change what these decode to,
    unless the text is whole.
    """
    if self._tokenizer.whole_only and not is_whole:
      return ''
    first, before = self._shown, ''
    while first and not before:  # entries such as padding have no text
      first = max(first - _OVERLAP, 0)
      before = self._tokenizer.decode(np.asarray(self._tokens[first : self._shown], np.int32))
    now = self._tokenizer.decode(np.asarray(self._tokens[first:], np.int32))
    if now.endswith(_INCOMPLETE) and not is_whole:
      return ''
    self._shown = len(self._tokens)
    return now[len(before) :]


def _save(path: files.Path, made: list[Text], step: int, seed: int) -> None:
  try:
    if path.suffix == '.txt':
      files.write_text(path, BETWEEN_TEXTS.join(text.text for text in made) + '\n')
    else:
      longest = max(len(text.tokens) for text in made)
      tokens = np.full((len(made), longest), -1, np.int32)
      for row, text in zip(tokens, made):
        row[: len(text.tokens)] = text.tokens
      files.write_npz(path, tokens=tokens, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f'cannot write {path} ({reason}); choose another --out') from error
