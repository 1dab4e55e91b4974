"""Small random models of Hugging Face's own classes, saved as its own code saves them."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from engine.restore import restore_run
from engine.sharding import path_name

torch = pytest.importorskip('torch', reason='PyTorch is not installed: requirements-extras.txt')
transformers = pytest.importorskip(
  'transformers', reason='transformers is not installed: requirements-extras.txt'
)

CONTEXT = 24
LINES = Path(os.__file__).read_text().splitlines()[:300]

GPT2 = dict(n_layer=2, n_embd=16, n_head=2, n_positions=CONTEXT, bos_token_id=0, eos_token_id=0)
BERT = dict(
  num_hidden_layers=2,
  hidden_size=16,
  num_attention_heads=2,
  intermediate_size=24,
  max_position_embeddings=CONTEXT,
)


def gpt2_tokenizer():
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

  made = Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(
    LINES,
    trainers.BpeTrainer(
      vocab_size=280,
      special_tokens=['<|endoftext|>'],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  return made


def bert_tokenizer():
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

  made = Tokenizer(models.WordPiece(unk_token='[UNK]'))
  made.normalizer = normalizers.BertNormalizer(lowercase=True)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  made.decoder = decoders.WordPiece()
  made.train_from_iterator(
    LINES,
    trainers.WordPieceTrainer(
      vocab_size=200,
      special_tokens=['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'],
      show_progress=False,
    ),
  )
  return made


def random_model(kind: str, **options):
  """A model of the class `kind`, with every parameter random: fresh ones are 0 and 1 in part."""
  shape = GPT2 if kind.startswith('GPT2') else BERT
  vocabulary = 280 if shape is GPT2 else bert_tokenizer().get_vocab_size()
  made = getattr(transformers, kind)
  config = made.config_class(**{'vocab_size': vocabulary, **shape, **options})
  torch.manual_seed(0)
  model = made(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.3 * torch.randn_like(parameter)
  return model


def save(model, folder: Path, **options) -> Path:
  """Writes a model with a tokenizer that fits, and returns the folder."""
  model.save_pretrained(folder, safe_serialization=True, **options)
  tokenizer = gpt2_tokenizer() if model.config.model_type == 'gpt2' else bert_tokenizer()
  tokenizer.save(str(folder / 'tokenizer.json'))
  return folder


def change_json(path: Path, **entries) -> None:
  path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def logits_of(model, tokens: np.ndarray, **options) -> np.ndarray:
  with torch.no_grad():
    return model(torch.tensor(tokens, dtype=torch.long), **options).logits.numpy()


def our_logits(workdir, tokens: np.ndarray, **options) -> np.ndarray:
  restored = restore_run(str(workdir), 'latest')
  module = restored.session.objective.modules['model']
  variables = restored.variables()['model']
  return np.asarray(module.apply(variables, tokens, train=False, **options))


def some_tokens(vocabulary: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, vocabulary, (3, CONTEXT)).astype(np.int32)


def params_of(workdir) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_leaves_with_path(restore_run(str(workdir), '').weights.params)
  return {path_name(path): np.asarray(leaf) for path, leaf in leaves}
