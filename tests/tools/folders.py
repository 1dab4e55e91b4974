"""Folders of Hugging Face models, written by hand in the form that transformers saves them in.

They need neither PyTorch nor transformers. The parameters are random.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tools.hugging_face.folder import CONFIG, WEIGHTS
from tools.hugging_face.layout import FAMILIES, expected

CONTEXT = 24
_CONFIGS = {
  'gpt2': dict(
    architectures=['GPT2LMHeadModel'],
    model_type='gpt2',
    n_layer=2,
    n_embd=16,
    n_head=2,
    n_inner=None,
    n_positions=CONTEXT,
    activation_function='gelu_new',
    layer_norm_epsilon=1e-5,
    resid_pdrop=0.1,
    embd_pdrop=0.1,
    attn_pdrop=0.1,
  ),
  'bert': dict(
    architectures=['BertForMaskedLM'],
    model_type='bert',
    num_hidden_layers=2,
    hidden_size=16,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=CONTEXT,
    type_vocab_size=2,
    hidden_act='gelu',
    layer_norm_eps=1e-12,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
  ),
}


def write_model(folder: Path, family: str, vocabulary: int, **entries: Any) -> dict[str, Any]:
  """Writes `config.json` with `entries` and the weights; returns the tensors by name."""
  config = {**_CONFIGS[family], 'vocab_size': vocabulary, **entries}
  folder.mkdir(parents=True, exist_ok=True)
  write_files(folder, {CONFIG: config})
  shapes = expected(FAMILIES[family].leaves(FAMILIES[family].options(config)))
  rng = np.random.default_rng(0)
  tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
  save_file(tensors, folder / WEIGHTS, metadata={'format': 'pt'})
  return tensors


def write_files(folder: Path, contents: Mapping[str, Any]) -> None:
  """Writes texts as they are, and everything else as JSON."""
  for name, content in contents.items():
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, newline='')
