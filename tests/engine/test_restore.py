"""A checkpoint of weights that are not finite is not taken for a model."""

import errno

import jax.numpy as jnp
import numpy as np
import pytest

import files
from configs import mlp
from data.spec import Spec
from data.text import tokenization
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.restore import restore_run, stored_config
from errors import UserError
from tests.tools import folders
from tools.hugging_face.export_run import export_run
from tools.hugging_face.import_folder import import_folder


@pytest.mark.parametrize('value', [np.nan, -np.inf])
def test_the_first_parameter_that_is_not_finite_is_named(value, tmp_path):
  folders.write_model(tmp_path / 'folder', 'gpt2', 256)
  tokenizer = tokenization.train('bpe', [], 256, ())
  folders.write_files(tmp_path / 'folder', {'tokenizer.json': tokenizer.to_json()})
  workdir = str(tmp_path / 'run')
  import_folder(str(tmp_path / 'folder'), workdir, scan=False)
  session = restore_run(workdir, 'latest').session
  checkpoints = Checkpoints(workdir, **to_plain(session.config.checkpoint))
  state, meta = checkpoints.restore(session.abstract)
  block = state.params['model']['block_1']
  block['mlp']['up']['kernel'] = block['mlp']['up']['kernel'].at[3, 5].set(value)
  block['mlp_norm']['bias'] = block['mlp_norm']['bias'].at[0].set(value)
  checkpoints.save(1, state.replace(step=jnp.int32(1)), meta, [])
  checkpoints.close()
  said = f'checkpoint 1 of {workdir} has NaN or infinite values in 2 of 28 arrays, the first '
  for restore in (restore_run, lambda *run: export_run(*run, str(tmp_path / 'out'))):
    with pytest.raises(UserError) as error:
      restore(workdir, 'latest')
    assert str(error.value).startswith(f'{said}params/model/block_1/mlp/up/kernel; choose an')
  assert not (tmp_path / 'out').exists()
  assert restore_run(workdir, '0').step == 0


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
  files.prepare_out(str(tmp_path / 'new' / 'out.json'))
  assert (tmp_path / 'new').is_dir()
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'cannot write .*/file/out\.json: .*/file is no folder'):
    files.prepare_out(str(tmp_path / 'file' / 'out.json'))
  for number, reason in ((errno.EROFS, 'can only be read'), (errno.ENOSPC, 'is full')):
    monkeypatch.setattr(files, '_obstacle', lambda folder, number=number: number)
    with pytest.raises(UserError, match=rf'cannot write .*out\.json: the disk of .* {reason}'):
      files.prepare_out(str(tmp_path / 'new' / 'out.json'))


@pytest.mark.parametrize(
  ('key', 'value'),
  [('data', 7), ('train', None), ('objective', []), ('checkpoint', 'x'), ('seeds', 'two')],
)
def test_a_config_of_another_form_is_damage(tmp_path, key, value):
  run.claim(str(tmp_path), mlp.get_config(), Spec('some', 'train', 3, {}, 2, 'abc'))
  assert stored_config(str(tmp_path)).train.epochs == 5.0
  files.write_json(tmp_path / 'config.json', {**run.read_config(str(tmp_path)), key: value})
  with pytest.raises(UserError, match=rf'config\.json is damaged \(.*config\.{key}'):
    stored_config(str(tmp_path))
