"""Import and export of models whose blocks are scanned, without PyTorch and transformers."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data.text import tokenization
from engine.restore import restore_run
from models.transformer import unstacked
from tools.hugging_face import tokenizer as tokenizers
from tools.hugging_face.export_run import export_run
from tools.hugging_face.folder import CONFIG, WEIGHTS
from tools.hugging_face.import_folder import import_folder
from tools.hugging_face.layout import FAMILIES, expected

CONTEXT, VOCABULARY = 8, 270
CONFIGS = {
  'gpt2': dict(
    model_type='gpt2', architectures=['GPT2LMHeadModel'], n_layer=3, n_embd=8, n_head=2,
    n_positions=CONTEXT, layer_norm_epsilon=1e-5, activation_function='gelu_new',
    resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, vocab_size=VOCABULARY,
  ),
  'bert': dict(
    model_type='bert', architectures=['BertForMaskedLM'], num_hidden_layers=3, hidden_size=8,
    num_attention_heads=2, intermediate_size=12, max_position_embeddings=CONTEXT,
    layer_norm_eps=1e-12, hidden_act='gelu', hidden_dropout_prob=0.1, type_vocab_size=2,
    attention_probs_dropout_prob=0.1, vocab_size=VOCABULARY,
  ),
}  # fmt: skip


def random_folder(path, kind):
  """A folder of Hugging Face's with random tensors; returns it and them."""
  family, rng = FAMILIES[kind], np.random.default_rng(0)
  shapes = expected(family.leaves(family.options(CONFIGS[kind])))
  tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
  roles = ('end', 'pad', 'unknown', 'class', 'separator', 'mask')
  known = tokenization.train('bpe', ['a text to learn from'], VOCABULARY - len(roles), roles)
  path.mkdir()
  save_file(tensors, path / WEIGHTS)
  for name, content in {
    CONFIG: CONFIGS[kind],
    **tokenizers.files(known.to_json(), CONTEXT),
  }.items():
    (path / name).write_text(json.dumps(content))
  return path, tensors


@pytest.mark.parametrize('kind', CONFIGS)
def test_scanned_and_separate_blocks_hold_the_same_tensors(kind, tmp_path):
  folder, tensors = random_folder(tmp_path / 'folder', kind)
  params = {}
  for scan in (False, True):
    workdir, out = str(tmp_path / f'run_{scan}'), tmp_path / f'out_{scan}'
    import_folder(str(folder), workdir, scan)
    params[scan] = jax.device_get(restore_run(workdir, '').variables()['model']['params'])
    export_run(workdir, '', str(out))
    written = load_file(out / WEIGHTS)
    for name, tensor in tensors.items():
      np.testing.assert_array_equal(written[name], tensor, err_msg=name)
  assert 'blocks' in params[True] and 'block_2' in params[False]
  jax.tree.map(np.testing.assert_array_equal, unstacked(params[True]), params[False])
