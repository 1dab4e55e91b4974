"""Text from a run of a language model: to the terminal as it comes, and to a file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from commands.render_samples import write_npz
from data.text import tokenization
from engine import run, runtime
from engine.report import BETWEEN_TEXTS
from engine.restore import Restored, check_seed, make_folder
from engine.state import stream_key, variables_for_sampling
from errors import UserError

# Tokens per device call: few enough that text appears as it is made.
_STRIDE = 8
# Texts made side by side, at most: bounds the memory whatever --num is.
_CHUNK = 64
# Tokens where neither the user nor the model says.
_UNBOUND = 256
USUAL = {'prompt': '', 'length': None, 'temperature': 1.0, 'top_k': 0, 'top_p': 1.0}


class Wish(NamedTuple):
  """What text is wanted.

  Attributes:
    prompt: what it begins with; '' leaves the start to the model.
    length: tokens of each text, the prompt included; None for the model's context, or 256 where
      that has no bound.
    temperature: of the softmax that tokens are drawn from; 0 takes the likeliest.
    top_k: draws among so many of the likeliest; 0 is off.
    top_p: draws among the likeliest that together have this probability; 1 is off.
    num: how many texts.
    seed: of the draws; text i is the same for a seed whatever `num` is.
  """

  prompt: str
  length: int | None
  temperature: float
  top_k: int
  top_p: float
  num: int
  seed: int


class Text(NamedTuple):
  """One text: its tokens int32 [T], up to the end of its document, and what they say."""

  tokens: np.ndarray
  text: str


def write(restored: Restored, wish: Wish, workdir: str, out: str | None) -> None:
  """Prints texts, one alone as it comes, and writes them to `out` if given.

  Args:
    restored: the run.
    wish: what is wanted.
    workdir: the run's folder, to be named.
    out: a .txt, an .npz with the tokens (padded with −1), or None.

  Raises:
    UserError: a value out of range, a prompt that the vocabulary cannot say, an unwritable `out`.
  """
  if out is not None:
    if Path(out).suffix not in ('.txt', '.npz'):
      raise UserError(f'--out={out} must end in .txt (the text) or .npz (its tokens)')
    make_folder(Path(out))
  made = []
  for text in texts(restored, wish, Screen()):
    made.append(text)
  if out is not None:
    _save(Path(out), made, restored.step, wish.seed)
    print(f'{len(made)} texts, step {restored.step} of {workdir}: {out}')


def texts(restored: Restored, wish: Wish, screen: 'Screen') -> Iterator[Text]:
  """Yields the texts, shown on `screen`.

  Raises:
    UserError: as `write`.
  """
  check_seed(wish.seed)
  if wish.num < 1:
    raise UserError(f'--num={wish.num} must be at least 1')
  tokenizer = tokenization.from_json(restored.session.spec.tokenizer)
  writing = restored.session.objective.writing
  length = wish.length if wish.length is not None else writing.context or _UNBOUND
  prompt = tokenizer.encode(wish.prompt)
  if not len(prompt):
    prompt = np.array([tokenizer.specials.get('end', 0)], np.int32)
  writing.check(prompt, length, wish.temperature, wish.top_k, wish.top_p)
  variables = variables_for_sampling(restored.state)
  key = stream_key(jax.random.key(wish.seed), 'sample')
  options = jnp.float32(wish.temperature), jnp.int32(wish.top_k), jnp.float32(wish.top_p)
  settings = dict(runtime.compiler_options())
  begin = jax.jit(writing.begin, static_argnums=3)
  advance = jax.jit(writing.advance, donate_argnums=1, compiler_options=settings)
  for first in range(0, wish.num, _CHUNK):
    number = min(_CHUNK, wish.num - first)
    prompts = jnp.broadcast_to(jnp.asarray(prompt, jnp.int32), (number, len(prompt)))
    loop = begin(variables, prompts, jax.random.fold_in(key, first // _CHUNK), length)
    finished = False
    while not finished:
      loop = advance(variables, loop, jnp.int32(_STRIDE), *options)
      position = int(loop.position)
      rows = [_document(row, tokenizer) for row in np.asarray(loop.tokens[:, :position])]
      finished = position >= length or all(ended for _, ended in rows)
      if wish.num == 1:
        screen.grow(tokenizer.decode(rows[0][0]))
    for i, (tokens, _) in enumerate(rows):
      text = Text(tokens, tokenizer.decode(tokens))
      if wish.num > 1:
        screen.whole(text.text, last=first + i + 1 == wish.num)
      yield text
  if wish.num == 1:
    screen.whole('', last=True)


def _document(tokens: np.ndarray, tokenizer: tokenization.Tokenizer) -> tuple[np.ndarray, bool]:
  """The tokens of the first document without the marks of its ends, and whether it has ended."""
  end = tokenizer.specials.get('end')
  if end is None:
    return tokens, False
  tokens = tokens[1:] if tokens[0] == end else tokens
  ends = np.flatnonzero(tokens == end)
  return (tokens[: ends[0]], True) if len(ends) else (tokens, False)


class Screen:
  """Standard output, and what of a growing text is on it."""

  def __init__(self) -> None:
    self._shown = ''

  def grow(self, text: str) -> None:
    """Shows what `text` adds to the last one."""
    # A character whose bytes are not all there yet decodes to this one.
    text = text.rstrip('\ufffd')
    if text.startswith(self._shown):
      sys.stdout.write(text[len(self._shown) :])
      sys.stdout.flush()
      self._shown = text

  def whole(self, text: str, last: bool) -> None:
    sys.stdout.write(text + ('\n' if last else BETWEEN_TEXTS))
    sys.stdout.flush()


def _save(path: Path, made: list[Text], step: int, seed: int) -> None:
  try:
    if path.suffix == '.txt':
      run.write_text(path, BETWEEN_TEXTS.join(text.text for text in made) + '\n')
    else:
      longest = max(len(text.tokens) for text in made)
      tokens = np.full((len(made), longest), -1, np.int32)
      for row, text in zip(tokens, made):
        row[: len(text.tokens)] = text.tokens
      write_npz(path, tokens=tokens, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    raise UserError(f'cannot write {path} ({error.strerror}); choose another --out') from error
