"""Conversion of Hugging Face's GPT-2 and BERT to `models.transformer.Transformer` and back.

A `Family` defines how the `config.json` of an architecture becomes the module's options, and which
tensors make up each parameter. Tensors have the names of the whole language model
(`GPT2LMHeadModel`, `BertForMaskedLM`). The weights of PyTorch's linear layers are [out, in] and are
transposed; those of GPT-2's `Conv1D` are [in, out] already.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from errors import UserError

Options = Mapping[str, Any]  # options of the module, as in `config.modules.model`
Shape = tuple[int, ...]

# Our name of an activation -> its names in `config.json`. Several names stand for one function,
# computed in different ways; an export writes the first.
_ACTIVATIONS = {
  'gelu_tanh': ('gelu_new', 'gelu_pytorch_tanh', 'gelu_fast', 'gelu_python_tanh', 'gelu_accurate'),
  'gelu': ('gelu', 'gelu_python'),
  'relu': ('relu',),
  'silu': ('silu', 'swish'),
  'tanh': ('tanh',),
  'sigmoid': ('sigmoid',),
  'relu6': ('relu6',),
  'mish': ('mish',),
}
# Number of BERT's token types, one for each text of a pair.
_PAIR = 2
_OURS = {theirs: ours for ours, names in _ACTIVATIONS.items() for theirs in names}


class Leaf(NamedTuple):
  """One parameter of the module, and the tensors of Hugging Face that it is converted from.

  Attributes:
    path: path of the parameter below the module, with unstacked blocks, e.g.
      `block_0/mlp/up/kernel`.
    tensors: name and shape of each tensor; none if Hugging Face's model has no such parameter,
      which is then 0.
    shape: shape of the parameter.
    pack: the tensors' arrays, in that order -> the parameter.
    unpack: the parameter -> the tensors' arrays.
  """

  path: str
  tensors: Mapping[str, Shape]
  shape: Shape
  pack: Callable[..., np.ndarray]
  unpack: Callable[[np.ndarray], Sequence[np.ndarray]]


class Family(NamedTuple):
  """An architecture of Hugging Face, and its conversion to the module and back.

  Attributes:
    title: its usual name.
    architectures: the classes that can be imported; an export is of the first.
    prefix: prefix of the names of the bare model's tensors in the whole model.
    heads: prefixes of the names of all other tensors.
    unused: regular expression of tensors that the language model does not use: buffers, other
      heads.
    head: regular expression of the tensors that a bare model lacks; empty if it lacks none.
    embedding: name of the embedding, which is also the output matrix of a tied model.
    untied: name of the output matrix of a model that is not tied.
    other_names: other name -> name, of tensors that other releases name differently or store twice.
    dropouts: dropout rates in `config.json`; the module has a single one, the first of them.
    options: `config.json` -> the module's options, with `vocabulary`, without `scan` and `remat`.
    config: the module's options -> `config.json`.
    leaves: the module's options, with `vocabulary` -> all of its parameters.
  """

  title: str
  architectures: Sequence[str]
  prefix: str
  heads: Sequence[str]
  unused: str
  head: str
  embedding: str
  untied: str
  other_names: Mapping[str, str]
  dropouts: Sequence[str]
  options: Callable[[Mapping[str, Any]], dict[str, Any]]
  config: Callable[[Options], dict[str, Any]]
  leaves: Callable[[Options], list[Leaf]]

  def canonical(self, names: Sequence[str]) -> dict[str, str]:
    """Returns {canonical name: name}, for `names` of old releases or of a bare model too.

    Canonical are the names of the whole model in today's transformers.

    Raises:
      UserError: two of `names` stand for one tensor, unless they are the two of `other_names`, of
        which the canonical one is used.
    """
    by_canonical: dict[str, str] = {}
    for name in names:
      # The names in checkpoints of TensorFlow.
      new = re.sub(r'LayerNorm\.gamma$', 'LayerNorm.weight', name)
      new = re.sub(r'LayerNorm\.beta$', 'LayerNorm.bias', new)
      if not new.startswith((self.prefix, *self.heads)):
        new = self.prefix + new
      if new in by_canonical:
        raise UserError(
          f'{by_canonical[new]} and {name} are two names of one tensor; remove one, or save '
          "the model again with today's transformers"
        )
      by_canonical[new] = name
    for other, name in self.other_names.items():
      if other in by_canonical:
        by_canonical.setdefault(name, by_canonical.pop(other))
    return by_canonical


def expected(leaves: Sequence[Leaf]) -> dict[str, Shape]:
  """Returns {name: shape} of the tensors that `leaves` are converted from."""
  return {name: shape for leaf in leaves for name, shape in leaf.tensors.items()}


# --- kinds of parameters --------------------------------------------------------------------------


def _same(path: str, name: str, shape: Shape) -> Leaf:
  return Leaf(path, {name: shape}, shape, lambda x: x, lambda x: (x,))


def _transposed(path: str, name: str, into: int, out: int) -> Leaf:
  """Returns a kernel [into, out] from a linear layer's weight [out, into]."""
  return Leaf(path, {name: (out, into)}, (into, out), np.transpose, lambda x: (x.T,))


def _zeros(path: str, shape: Shape) -> Leaf:
  def unpack(x: np.ndarray) -> tuple[()]:
    if np.any(x):
      raise UserError(
        f'the run has a parameter {path} that is not 0, and a GPT-2 has none; it cannot be exported'
      )
    return ()

  return Leaf(path, {}, shape, lambda: np.zeros(shape, np.float32), unpack)


def _norm(path: str, name: str, width: int) -> list[Leaf]:
  return [
    _same(f'{path}/scale', f'{name}.weight', (width,)),
    _same(f'{path}/bias', f'{name}.bias', (width,)),
  ]


def _conv1d(path: str, name: str, into: int, out: int) -> list[Leaf]:
  return [
    _same(f'{path}/kernel', f'{name}.weight', (into, out)),
    _same(f'{path}/bias', f'{name}.bias', (out,)),
  ]


def _linear(path: str, name: str, into: int, out: int) -> list[Leaf]:
  return [
    _transposed(f'{path}/kernel', f'{name}.weight', into, out),
    _same(f'{path}/bias', f'{name}.bias', (out,)),
  ]


def _by_head(x: np.ndarray, heads: int) -> np.ndarray:
  """Reorders […, 3·C] from all queries, all keys, all values to query, key, value of each head."""
  return np.swapaxes(x.reshape(*x.shape[:-1], 3, heads, -1), -3, -2).reshape(x.shape)


def _by_kind(x: np.ndarray, heads: int) -> np.ndarray:
  """Inverts `_by_head`: reorders […, 3·C] to all queries, all keys, all values."""
  return np.swapaxes(x.reshape(*x.shape[:-1], heads, 3, -1), -3, -2).reshape(x.shape)


def _joint_attention(path: str, name: str, width: int, heads: int) -> list[Leaf]:
  """Returns the map to queries, keys and values, from a single `Conv1D`."""

  def leaf(ours: str, theirs: str, shape: Shape) -> Leaf:
    return Leaf(
      f'{path}/{ours}',
      {f'{name}.{theirs}': shape},
      shape,
      lambda x: _by_head(x, heads),
      lambda x: (_by_kind(x, heads),),
    )

  return [leaf('kernel', 'weight', (width, 3 * width)), leaf('bias', 'bias', (3 * width,))]


def _separate_attention(path: str, name: str, width: int, heads: int) -> list[Leaf]:
  """Returns the map to queries, keys and values, from one linear layer for each."""
  parts = [f'{name}.{kind}' for kind in ('query', 'key', 'value')]

  def pack(*tensors: np.ndarray) -> np.ndarray:
    return _by_head(np.concatenate([x.T for x in tensors], axis=-1), heads)

  def unpack(x: np.ndarray) -> list[np.ndarray]:
    return [part.T for part in np.split(_by_kind(x, heads), 3, axis=-1)]

  weights = {f'{part}.weight': (width, width) for part in parts}
  biases = {f'{part}.bias': (width,) for part in parts}
  return [
    Leaf(f'{path}/kernel', weights, (width, 3 * width), pack, unpack),
    Leaf(f'{path}/bias', biases, (3 * width,), pack, unpack),
  ]


# --- what both families share ---------------------------------------------------------------------


class _Config:
  """A `config.json` whose entries are checked as they are read."""

  def __init__(self, entries: Mapping[str, Any]):
    self._entries = entries

  def number(self, name: str, kind: type = int) -> Any:
    """Returns a required number: an int of at least 1, or a float of at least 0."""
    value = self._entries.get(name)
    fits = isinstance(value, int) or (kind is float and isinstance(value, float))
    if not fits or isinstance(value, bool) or value < (kind is int):
      shown = f'no {name}' if value is None else f'{name}={value!r}'
      needed = 'an integer of at least 1' if kind is int else 'a number of at least 0'
      raise UserError(
        f'config.json has {shown}, and {name} must be {needed}; download the file again, or save '
        'the model with a current version of transformers'
      )
    return kind(value)

  def activation(self, name: str) -> str:
    """Returns our name of an activation."""
    value = self._entries.get(name)
    if not isinstance(value, str) or value not in _OURS:
      raise UserError(
        f'config.json has {name}={value}, which cannot be imported; these can: {", ".join(_OURS)}'
      )
    return _OURS[value]

  def tied(self) -> bool:
    """Returns whether the output matrix is the embedding."""
    # transformers leaves the entry out if it is the default, True.
    value = self._entries.get('tie_word_embeddings', True)
    if not isinstance(value, bool):
      raise UserError(
        f'config.json has tie_word_embeddings={value!r}, which must be true or false; download the '
        'file again'
      )
    return value

  def require(self, **required: Any) -> None:
    """Raises UserError if an option is given with another value than the required one."""
    for name, value in required.items():
      if self._entries.get(name, value) != value:
        raise UserError(
          f'config.json has {name}={self._entries[name]}, and only {name}={value} can be imported'
        )


def _require(options: Options, title: str, **required: Any) -> None:
  """Raises UserError naming the option by which a module differs from the family `title`."""
  # As many key-value heads as heads can be written as 0 too.
  groups = {'key_value_heads': options['key_value_heads'] or options['heads']}
  required = {**required, 'key_value_heads': options['heads']}
  for name, value in required.items():
    if {**options, **groups}[name] != value:
      raise UserError(
        f'the run has config.modules.model.{name}={options[name]}, and a {title} has {name}={value}'
        '; it cannot be exported'
      )
  if options['mlp'] not in _ACTIVATIONS:
    raise UserError(
      f'the run has config.modules.model.mlp={options["mlp"]}, and a {title} has one of '
      f'{", ".join(_ACTIVATIONS)}; it cannot be exported'
    )


def _types(options: Options) -> int:
  """Returns the number of token types of a BERT; if the module has none, their embeddings are 0."""
  return options['types'] or _PAIR


def _hidden(options: Options) -> int:
  return options['hidden'] or 4 * options['width']


# Options that are the same in every GPT-2 and BERT, and so are not in config.json.
_FIXED = dict(key_value_heads=0, norm='layer', positions='learned', biases=True)


# --- GPT-2 ----------------------------------------------------------------------------------------


def _gpt2_options(config: Mapping[str, Any]) -> dict[str, Any]:
  read = _Config(config)
  read.require(
    scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False
  )
  return dict(
    **_FIXED,
    width=read.number('n_embd'),
    layers=read.number('n_layer'),
    heads=read.number('n_head'),
    hidden=0 if config.get('n_inner') is None else read.number('n_inner'),
    context=read.number('n_positions'),
    causal=True,
    norm_place='pre',
    norm_epsilon=read.number('layer_norm_epsilon', float),
    mlp=read.activation('activation_function'),
    tied=read.tied(),
    types=0,
    embedding_norm=False,
    head='linear',
    dropout=read.number('resid_pdrop', float),
    vocabulary=read.number('vocab_size'),
  )


def _gpt2_config(options: Options) -> dict[str, Any]:
  _require(
    options,
    'GPT-2',
    causal=True,
    norm='layer',
    norm_place='pre',
    positions='learned',
    types=0,
    embedding_norm=False,
    head='linear',
  )
  return dict(
    architectures=['GPT2LMHeadModel'],
    model_type='gpt2',
    vocab_size=options['vocabulary'],
    n_positions=options['context'],
    n_ctx=options['context'],
    n_embd=options['width'],
    n_layer=options['layers'],
    n_head=options['heads'],
    n_inner=_hidden(options),
    activation_function=_ACTIVATIONS[options['mlp']][0],
    resid_pdrop=options['dropout'],
    embd_pdrop=options['dropout'],
    attn_pdrop=options['dropout'],
    layer_norm_epsilon=options['norm_epsilon'],
    tie_word_embeddings=options['tied'],
  )


def _gpt2_leaves(options: Options) -> list[Leaf]:
  width, hidden, heads = options['width'], _hidden(options), options['heads']
  vocabulary = options['vocabulary']
  leaves = [
    _same('embedding/embedding', 'transformer.wte.weight', (vocabulary, width)),
    _same('positions/embedding', 'transformer.wpe.weight', (options['context'], width)),
  ]
  for i in range(options['layers']):
    block, theirs = f'block_{i}', f'transformer.h.{i}'
    leaves += [
      *_norm(f'{block}/attention_norm', f'{theirs}.ln_1', width),
      *_joint_attention(
        f'{block}/attention/query_key_value', f'{theirs}.attn.c_attn', width, heads
      ),
      *_conv1d(f'{block}/attention/output', f'{theirs}.attn.c_proj', width, width),
      *_norm(f'{block}/mlp_norm', f'{theirs}.ln_2', width),
      *_conv1d(f'{block}/mlp/up', f'{theirs}.mlp.c_fc', width, hidden),
      *_conv1d(f'{block}/mlp/down', f'{theirs}.mlp.c_proj', hidden, width),
    ]
  leaves += _norm('norm', 'transformer.ln_f', width)
  if not options['tied']:
    leaves += [
      _transposed('output/kernel', 'lm_head.weight', width, vocabulary),
      _zeros('output/bias', (vocabulary,)),
    ]
  return leaves


# --- BERT -----------------------------------------------------------------------------------------


def _bert_options(config: Mapping[str, Any]) -> dict[str, Any]:
  read = _Config(config)
  read.require(is_decoder=False, add_cross_attention=False, position_embedding_type='absolute')
  return dict(
    **_FIXED,
    width=read.number('hidden_size'),
    layers=read.number('num_hidden_layers'),
    heads=read.number('num_attention_heads'),
    hidden=read.number('intermediate_size'),
    context=read.number('max_position_embeddings'),
    causal=False,
    norm_place='post',
    norm_epsilon=read.number('layer_norm_eps', float),
    mlp=read.activation('hidden_act'),
    tied=read.tied(),
    types=read.number('type_vocab_size'),
    embedding_norm=True,
    head='transform',
    dropout=read.number('hidden_dropout_prob', float),
    vocabulary=read.number('vocab_size'),
  )


def _bert_config(options: Options) -> dict[str, Any]:
  _require(
    options,
    'BERT',
    causal=False,
    norm='layer',
    norm_place='post',
    positions='learned',
    embedding_norm=True,
    head='transform',
  )
  return dict(
    architectures=['BertForMaskedLM'],
    model_type='bert',
    vocab_size=options['vocabulary'],
    hidden_size=options['width'],
    num_hidden_layers=options['layers'],
    num_attention_heads=options['heads'],
    intermediate_size=_hidden(options),
    hidden_act=_ACTIVATIONS[options['mlp']][0],
    hidden_dropout_prob=options['dropout'],
    attention_probs_dropout_prob=options['dropout'],
    max_position_embeddings=options['context'],
    type_vocab_size=_types(options),
    layer_norm_eps=options['norm_epsilon'],
    tie_word_embeddings=options['tied'],
  )


def _bert_leaves(options: Options) -> list[Leaf]:
  width, hidden, heads = options['width'], _hidden(options), options['heads']
  vocabulary, embeddings, head = options['vocabulary'], 'bert.embeddings', 'cls.predictions'
  leaves = [
    _same('embedding/embedding', f'{embeddings}.word_embeddings.weight', (vocabulary, width)),
    _same(
      'positions/embedding',
      f'{embeddings}.position_embeddings.weight',
      (options['context'], width),
    ),
    _same(
      'types/embedding', f'{embeddings}.token_type_embeddings.weight', (_types(options), width)
    ),
    *_norm('embedding_norm', f'{embeddings}.LayerNorm', width),
  ]
  for i in range(options['layers']):
    block, theirs = f'block_{i}', f'bert.encoder.layer.{i}'
    attention = f'{theirs}.attention'
    leaves += [
      *_separate_attention(f'{block}/attention/query_key_value', f'{attention}.self', width, heads),
      *_linear(f'{block}/attention/output', f'{attention}.output.dense', width, width),
      *_norm(f'{block}/attention_norm', f'{attention}.output.LayerNorm', width),
      *_linear(f'{block}/mlp/up', f'{theirs}.intermediate.dense', width, hidden),
      *_linear(f'{block}/mlp/down', f'{theirs}.output.dense', hidden, width),
      *_norm(f'{block}/mlp_norm', f'{theirs}.output.LayerNorm', width),
    ]
  leaves += [
    *_linear('transform', f'{head}.transform.dense', width, width),
    *_norm('transform_norm', f'{head}.transform.LayerNorm', width),
    _same('output/bias', f'{head}.decoder.bias', (vocabulary,)),
  ]
  if not options['tied']:
    leaves.append(_transposed('output/kernel', f'{head}.decoder.weight', width, vocabulary))
  return leaves


FAMILIES = {
  'gpt2': Family(
    title='GPT-2',
    architectures=('GPT2LMHeadModel', 'GPT2Model'),
    prefix='transformer.',
    heads=('lm_head.',),
    unused=r'^transformer\.h\.\d+\.attn\.(masked_)?bias$',
    head='',
    embedding='transformer.wte.weight',
    untied='lm_head.weight',
    other_names={},
    dropouts=('resid_pdrop', 'embd_pdrop', 'attn_pdrop'),
    options=_gpt2_options,
    config=_gpt2_config,
    leaves=_gpt2_leaves,
  ),
  'bert': Family(
    title='BERT',
    architectures=('BertForMaskedLM', 'BertForPreTraining', 'BertModel'),
    prefix='bert.',
    heads=('cls.',),
    unused=r'^bert\.(embeddings\.position_ids$|pooler\.)|^cls\.seq_relationship\.',
    head=r'^cls\.predictions\.',
    embedding='bert.embeddings.word_embeddings.weight',
    untied='cls.predictions.decoder.weight',
    # Models that are not tied store both, and transformers uses that of the decoder.
    other_names={'cls.predictions.bias': 'cls.predictions.decoder.bias'},
    dropouts=('hidden_dropout_prob', 'attention_probs_dropout_prob'),
    options=_bert_options,
    config=_bert_config,
    leaves=_bert_leaves,
  ),
}
