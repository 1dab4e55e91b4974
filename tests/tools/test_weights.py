"""Weights that cannot be right end an import or an export with one sentence that names them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.text import tokenization
from errors import UserError
from tests.tools import folders
from tools.hugging_face.folder import CONFIG, INDEX, WEIGHTS, find_tensors, read_tensor
from tools.hugging_face.import_folder import import_folder, inspect

SIZE = 256
NAME = 'transformer.h.1.mlp.c_fc.weight'


@pytest.fixture
def folder(tmp_path):
  """A GPT-2 over bytes."""
  place = tmp_path / 'folder'
  folders.write_model(place, 'gpt2', SIZE)
  tokenizer = tokenization.train('bpe', [], SIZE, ())
  (place / 'tokenizer.json').write_text(tokenizer.to_json())
  return place


def tensors_of(folder):
  return {name: read_tensor(name, entry) for name, entry in find_tensors(folder).items()}


def save(folder, tensors, name=WEIGHTS):
  save_file(tensors, folder / name, metadata={'format': 'pt'})


def save_header(folder, changes):
  """Changes entries of the header of the file, whose data stay."""
  raw = (folder / WEIGHTS).read_bytes()
  size = int.from_bytes(raw[:8], 'little')
  header = json.loads(raw[8 : 8 + size])
  for name, entry in changes.items():
    header[name].update(entry)
  text = json.dumps(header).encode()
  (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, 'little') + text + raw[8 + size :])


def refused(folder):
  with pytest.raises(UserError) as error:
    inspect(folder)
  assert '\n' not in str(error.value)
  return str(error.value)


def save_shards(folder, change):
  """Writes the tensors as two files and an index, which `change` may spoil; removes the one."""
  tensors = tensors_of(folder)
  names = [*tensors]
  parts = {'a.safetensors': names[:9], 'b.safetensors': names[9:]}
  index = {name: file for file, part in parts.items() for name in part}
  change(parts, index)
  for file, part in parts.items():
    save(folder, {name: tensors[name] for name in part}, file)
  folders.write_files(folder, {INDEX: {'metadata': {}, 'weight_map': index}})
  (folder / WEIGHTS).unlink()
  return names


def test_shards_are_read_whole(folder):
  before = tensors_of(folder)
  save_shards(folder, lambda parts, index: None)
  after = tensors_of(folder)
  assert before.keys() == after.keys()
  assert all(np.array_equal(before[name], after[name]) for name in before)
  inspect(folder)


def test_a_shard_that_is_missing_is_named(folder):
  save_shards(folder, lambda parts, index: parts.pop('b.safetensors'))
  assert 'names b.safetensors, which is not in' in refused(folder)


def test_a_tensor_in_two_shards_is_named(folder):
  def repeat(parts, index):
    parts['b.safetensors'].append(parts['a.safetensors'][0])

  names = save_shards(folder, repeat)
  assert f'{names[0]} is in both a.safetensors and b.safetensors' in refused(folder)


def test_a_tensor_that_no_shard_has_is_named(folder):
  save_shards(folder, lambda parts, index: parts[index[NAME]].remove(NAME))
  assert f'the tensor {NAME}, which is in none' in refused(folder)


def test_a_tensor_that_the_model_has_no_place_for_is_named_even_outside_the_index(folder):
  tensors = tensors_of(folder)
  save_shards(folder, lambda parts, index: None)
  other = {name: tensors[name] for name in [*tensors][:9]} | {'lm_head.scale': np.ones(1)}
  save(folder, other, 'a.safetensors')
  assert 'unknown: lm_head.scale' in refused(folder)


def test_two_names_of_one_tensor_are_named(folder):
  tensors = tensors_of(folder)
  bare = NAME.removeprefix('transformer.')
  save(folder, {**tensors, bare: 2 * tensors[NAME]})
  said = refused(folder)
  assert bare in said.split() and NAME in said.split()


@pytest.mark.parametrize('dtype', ['F8_E4M3', 'F8_E5M2', 'I8', 'U8', 'BOOL'])
def test_a_dtype_that_is_not_read_is_named_before_anything_is_written(dtype, folder):
  tensors = tensors_of(folder)
  save(folder, {**tensors, NAME: np.zeros(tensors[NAME].shape, np.int8)})
  save_header(folder, {NAME: {'dtype': dtype}})
  assert f'of another dtype: {NAME} {dtype} instead of F64 or F32 or F16 or BF16' in refused(folder)


def test_a_folder_in_place_of_the_weights_is_named(folder):
  (folder / WEIGHTS).unlink()
  (folder / WEIGHTS).mkdir()
  assert f'{WEIGHTS} is no file' in refused(folder)


def test_a_shape_is_named(folder):
  tensors = tensors_of(folder)
  save(folder, {**tensors, NAME: tensors[NAME].T.copy()})
  assert f'of another shape: {NAME} (64, 16) instead of (16, 64)' in refused(folder)


@pytest.mark.parametrize(
  ('value', 'dtype', 'said'),
  [
    (np.nan, np.float32, 'the first nan at [3, 5]'),
    (-np.inf, np.float16, 'the first -inf at [3, 5]'),
    (1e39, np.float64, 'too large for float32, the first inf at [3, 5]'),
  ],
)
def test_weights_that_are_not_finite_are_not_imported(value, dtype, said, folder, tmp_path):
  tensors = tensors_of(folder)
  for name in (NAME, 'transformer.ln_f.bias'):
    tensors[name] = tensors[name].astype(dtype)
    tensors[name][..., 5:7] = value
  tensors[NAME][:3] = 0
  save(folder, tensors)
  with pytest.raises(UserError) as error:
    import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  text = str(error.value)
  assert f'{NAME} in' in text or 'transformer.ln_f.bias in' in text
  assert '\n' not in text and 'values that are NaN' in text
  assert not (tmp_path / 'run').exists() and not list(tmp_path.glob('*.part'))
  with pytest.raises(UserError, match='26 values') as error:
    read_tensor(NAME, find_tensors(folder)[NAME])
  assert said in str(error.value)


@pytest.mark.parametrize(
  ('entries', 'said'),
  [
    (dict(architectures=5), 'architectures=5, and must have a word and a list of words'),
    (dict(architectures=[1]), 'architectures=[1], and must have'),
    (dict(model_type=['gpt2']), "model_type=['gpt2'] and"),
    (dict(activation_function=['gelu']), "activation_function=['gelu'], which cannot be imported"),
    (dict(tie_word_embeddings='false'), "tie_word_embeddings='false', which must be true or false"),
    (dict(n_layer=10**9), 'has 1,000,000,000 layers, and the files of'),
  ],
)
def test_a_config_of_other_types_and_sizes_is_refused(folder, entries, said):
  config = json.loads((folder / CONFIG).read_text())
  (folder / CONFIG).write_text(json.dumps({**config, **entries}))
  assert said in refused(folder)
