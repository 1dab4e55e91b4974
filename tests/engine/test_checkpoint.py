"""Checkpoints on a small tree: latest and best, damage, other structures, NaN."""

import json
import re
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import files
from engine.checkpoint import Checkpoints, fingerprint
from engine.state import State, weights
from errors import UserError
from tests import buckets


def state(value, size=8, step=0):
  return of_params({'w': jnp.full(size, value), 'i': jnp.int32(3)}, step)


def of_params(params, step=0):
  moments = {'a': jnp.zeros(2)}
  return State(jnp.int32(step), {'a': params}, {'a': {}}, moments, {}, jax.random.key(1))


def abstract(tree):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def opened(folder, keep=2, best='', mode='min', lanes=1):
  return Checkpoints(str(folder), every=1, keep=keep, best=best, best_mode=mode, lanes=lanes)


def fill(folder, values, **options):
  """Saves step i + 1 with the metric values[i]."""
  checkpoints = opened(folder, best='test/x', **options)
  for i, value in enumerate(values):
    checkpoints.save(i + 1, state(float(i + 1)), {'used': i}, [{'test/x': value}])
  checkpoints.close()


def test_round_trip_with_what_stands_beside_it(tmp_path):
  checkpoints = opened(tmp_path)
  checkpoints.save(5, state(2.5, step=5), {'used': 640, 'seeds': [7]}, [])
  checkpoints.close()
  restored, meta = opened(tmp_path).restore(abstract(state(0.0)))
  np.testing.assert_array_equal(restored.params['a']['w'], np.full(8, 2.5, np.float32))
  assert jax.random.key_data(restored.key).tolist() == [0, 1] and restored.step == 5
  assert (meta['step'], meta['used'], meta['seeds']) == (5, 640, [7])


def test_weights_are_read_without_the_rest(tmp_path):
  """What comes after training needs neither optimizers nor key, whole or damaged."""
  checkpoints = opened(tmp_path)
  checkpoints.save(5, state(2.5), {}, [])
  checkpoints.close()
  shutil.rmtree(tmp_path / 'checkpoints' / '5' / 'training')
  found, meta = opened(tmp_path).restore_weights(weights(abstract(state(0.0))))
  np.testing.assert_array_equal(found.params['a']['w'], np.full(8, 2.5, np.float32))
  assert meta['step'] == 5
  assert opened(tmp_path).restore_weights(weights(abstract(state(0.0))), 5) is not None
  with pytest.raises(UserError, match='there is no checkpoint 6; there are'):
    opened(tmp_path).restore_weights(weights(abstract(state(0.0))), 6)


def test_the_best_of_every_lane_is_kept(tmp_path):
  checkpoints = opened(tmp_path, keep=1, best='test/x', lanes=2)
  for step, pair in enumerate([(5.0, 1.0), (2.0, 3.0), (4.0, 2.0), (6.0, 9.0)], 1):
    checkpoints.save(step, state(float(step)), {}, [{'test/x': value} for value in pair])
  checkpoints.close()
  again = opened(tmp_path, best='test/x', lanes=2)
  assert again.steps() == [1, 2, 4]
  assert (again.best_step(0), again.best_step(1)) == (2, 1)


def test_the_newest_are_kept(tmp_path):
  fill(tmp_path, [3.0, 2.0, 1.0], keep=2)
  assert opened(tmp_path).steps() == [2, 3]


@pytest.mark.parametrize('mode, best', [('min', 2), ('max', 4)])
def test_the_best_is_kept_too_and_over_a_restart(tmp_path, mode, best):
  fill(tmp_path, [5.0, 1.0, 4.0, 9.0, 3.0, 3.5], keep=1, mode=mode)
  assert opened(tmp_path).steps() == [best, 6]
  again = opened(tmp_path, keep=1, best='test/x', mode=mode)
  again.save(7, state(7.0), {}, [{'test/x': 4.5}])
  again.close()
  assert opened(tmp_path, best='test/x', mode=mode).steps() == [best, 7]
  assert opened(tmp_path, best='test/x', mode=mode).best_step() == best


@pytest.mark.parametrize('mode', ['min', 'max'])
def test_a_nan_is_never_the_best(tmp_path, mode):
  fill(tmp_path, [2.0, float('nan'), 2.5, 3.0], keep=1, mode=mode)
  best = opened(tmp_path, best='test/x', mode=mode).best_step()
  assert best == (1 if mode == 'min' else 4)


def biggest_file(folder):
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def flip(folder):
  path = biggest_file(folder / 'variables' / 'ocdbt.process_0')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


DAMAGES = {
  'flipped bit': flip,
  'truncated': lambda f: biggest_file(f / 'variables').write_bytes(b''),
  'no variables': lambda f: shutil.rmtree(f / 'variables'),
  'no training': lambda f: shutil.rmtree(f / 'training'),
  'empty': lambda f: (shutil.rmtree(f), f.mkdir()),
  'no meta': lambda f: (f / 'meta' / 'metadata').write_text('{'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_falls_back_to_the_one_before(tmp_path, damage, capsys):
  checkpoints = opened(tmp_path, best='test/x')
  for step in (1, 2):
    values = np.random.default_rng(step).normal(size=4096).astype(np.float32)
    checkpoints.save(step, of_params({'w': jnp.asarray(values)}), {}, [{'test/x': 1.0}])
  checkpoints.close()
  DAMAGES[damage](tmp_path / 'checkpoints' / '2')
  again = opened(tmp_path, best='test/x')
  restored, meta = again.restore(abstract(of_params({'w': jnp.zeros(4096)})))
  assert meta['step'] == 1
  np.testing.assert_array_equal(
    restored.params['a']['w'], np.random.default_rng(1).normal(size=4096).astype(np.float32)
  )
  assert 'set aside' in capsys.readouterr().err
  assert (tmp_path / 'damaged_checkpoints' / '2').exists()
  # And training goes on, saving the same step again.
  again.save(2, restored, {}, [{'test/x': 0.5}])
  again.close()
  assert opened(tmp_path).steps()[-1] == 2


def test_nothing_is_left_when_all_are_damaged(tmp_path):
  fill(tmp_path, [1.0])
  (tmp_path / 'checkpoints' / '1' / 'meta' / 'metadata').write_text('')
  assert opened(tmp_path).restore(abstract(state(0.0))) is None


def test_another_structure_is_refused_and_left_alone(tmp_path):
  fill(tmp_path, [1.0])
  for target, part in (
    (of_params({**state(0.0).params['a'], 'b': jnp.zeros(2)}), 'missing: params/a/b'),
    (state(0.0, size=9), 'another shape: params/a/w'),
    (of_params({'w': jnp.zeros(8)}), 'extra: params/a/i'),
    (
      of_params({'w': jnp.zeros(8, jnp.bfloat16), 'i': jnp.int32(0)}),
      'another shape: params/a/w',
    ),
    (state(0.0).replace(opt_state={'a': jnp.zeros(3)}), 'another shape: opt_state/a'),
  ):
    with pytest.raises(UserError, match=part):
      opened(tmp_path).restore(abstract(target))
  assert opened(tmp_path).steps() == [1]


def test_a_refused_save_is_told_once_and_the_next_one_is_made(tmp_path, monkeypatch):
  checkpoints = opened(tmp_path, best='test/x')
  checkpoints.save(1, state(1.0), {}, [{'test/x': 2.0}])
  checkpoints.wait()
  assert checkpoints.is_saved(1) and checkpoints.refusals() == []

  def full(*args, **kwargs):
    (tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoints._manager(), 'save', full)
  checkpoints.save(2, state(2.0), {}, [{'test/x': 1.0}])
  (refused,) = checkpoints.refusals()
  assert (refused.step, refused.whole) == (2, False)
  assert re.fullmatch('the disk of .* is full; free some space', refused.reason)
  assert not checkpoints.is_saved(2) and checkpoints.refusals() == []
  assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['1']
  # The best is the best of those that are there.
  assert checkpoints.best_step() == 1
  checkpoints.save(3, state(3.0), {}, [{'test/x': 3.0}])
  checkpoints.close()
  assert opened(tmp_path).steps() == [1, 3] and checkpoints.best_step() == 1


def test_a_save_that_fails_in_the_background_is_heard_of(tmp_path, monkeypatch):
  """By `look`, as soon as it has ended, and the same step may be saved again."""
  import orbax.checkpoint as ocp

  checkpoints = opened(tmp_path)

  def full(*arguments, **options):
    raise ValueError('RESOURCE_EXHAUSTED: Failed to write 7 bytes: No space left on device')

  monkeypatch.setattr(ocp.CompositeCheckpointHandler, 'finalize', full)
  checkpoints.save(1, state(1.0), {}, [])
  found, last = [], time.monotonic() + 60
  while not found and time.monotonic() < last:
    checkpoints.look()
    found = checkpoints.refusals()
  assert [refused.step for refused in found] == [1] and not checkpoints.is_saved(1)
  assert [*(tmp_path / 'checkpoints').iterdir()] == []
  monkeypatch.undo()
  checkpoints.save(1, state(1.0), {}, [])
  checkpoints.wait()
  assert checkpoints.is_saved(1) and opened(tmp_path).steps() == [1]


def test_a_refusal_that_nobody_asks_for_is_an_error_at_the_end(tmp_path, monkeypatch):
  checkpoints = opened(tmp_path)
  monkeypatch.setattr(checkpoints, '_why_no_room', lambda: 'the disk of X can only be read')
  checkpoints.save(1, state(1.0), {}, [])
  with pytest.raises(UserError, match=r'of X can only be read; the same .* from the beginning'):
    checkpoints.close()


def test_other_failures_of_a_save_stay_errors(tmp_path, monkeypatch):
  checkpoints = opened(tmp_path)

  def broken(*arguments, **options):
    raise ValueError('a mistake of ours')

  monkeypatch.setattr(checkpoints._manager(), 'save', broken)
  with pytest.raises(ValueError, match='a mistake of ours'):
    checkpoints.save(1, state(1.0), {}, [])


@pytest.mark.parametrize(
  'error, part',
  [
    (lambda _: OSError(30, 'Read-only'), r'disk of .* can only be read; choose another'),
    (lambda _: OSError(122, 'Disk quota exceeded'), 'quota for .* is used up'),
    (lambda folder: ValueError(f'INTERNAL: {folder} [Permission denied]'), 'this user may not'),
    (lambda _: ValueError('RESOURCE_EXHAUSTED: [No space left on device]'), 'disk of .* full'),
    (
      lambda folder: ValueError(f'writing {folder}/d: File too large [27]'),
      'limits the size of files',
    ),
    (lambda _: OSError(5, 'Input/output error'), 'disk of .* fails; see to it'),
    (lambda folder: FileNotFoundError(2, 'No such file', str(folder)), 'is missing'),
    (lambda _: ValueError('UNKNOWN: [File too large]'), r'limits the size of files in .*ulimit'),
  ],
)
def test_what_a_disk_refuses_is_told_apart(tmp_path, error, part):
  checkpoints = opened(tmp_path)
  with pytest.raises(UserError, match=part), checkpoints.disk_errors():
    raise error(checkpoints.folder)


def test_errors_about_something_else_are_no_refusal_of_the_disk(tmp_path):
  memory = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory, No space left on device')
  elsewhere = FileNotFoundError(2, 'No such file or directory', '/some/other/place')
  for error in (memory, elsewhere, ValueError('No such file or directory')):
    with pytest.raises(type(error)), opened(tmp_path).disk_errors():
      raise error


def test_fingerprint_sees_every_bit_and_the_order():
  base = jnp.full(8, 1.0)
  before = fingerprint({'w': base})
  for i in (0, 7):
    changed = base.at[i].set(np.nextafter(np.float32(1), np.float32(2)))
    assert fingerprint({'w': changed})['w'] != before['w']
  mixed = jnp.arange(8.0)
  assert fingerprint({'w': mixed})['w'] != fingerprint({'w': mixed[::-1]})['w']
  json.dumps(before)


PLACE = 'gs://some/run'


def in_bucket(name):
  return f'some/run/checkpoints/{name}'


def restored_step():
  found = opened(PLACE).restore(abstract(state(0.0)))
  return None if found is None else found[1]['step']


def test_a_bucket_holds_checkpoints_as_a_disk_does(bucket_of_runs):
  fill(PLACE, [5.0, 1.0, 4.0, 3.0], keep=1)
  again = opened(PLACE, best='test/x')
  assert str(again.folder) == f'{PLACE}/checkpoints'
  assert (again.steps(), again.best_step()) == ([2, 4], 2)
  restored, meta = again.restore(abstract(state(0.0)))
  np.testing.assert_array_equal(restored.params['a']['w'], np.full(8, 4.0, np.float32))
  assert meta['used'] == 3
  # Nothing is left of those that were dropped, and the arrays are there too, not on a disk.
  assert {name.split('/')[3] for name in bucket_of_runs.objects} == {'2', '4'}
  assert any(name.startswith(in_bucket('4/variables/ocdbt')) for name in bucket_of_runs.objects)


def test_an_unfinished_checkpoint_in_a_bucket_does_not_count(bucket_of_runs):
  """A bucket renames nothing: what Orbax writes last says that a checkpoint is finished."""
  fill(PLACE, [1.0, 2.0])
  assert bucket_of_runs.uploads[-1] == in_bucket('2/commit_success.txt')
  del bucket_of_runs.objects[in_bucket('2/commit_success.txt')]
  assert opened(PLACE).steps() == [1] and restored_step() == 1
  again = opened(PLACE)
  again.save(2, state(7.0), {}, [])
  again.close()
  assert opened(PLACE).steps() == [1, 2] and restored_step() == 2


def test_a_bucket_that_refuses_is_one_sentence(bucket_of_runs, monkeypatch):
  def forbidden(*arguments):
    error = Exception('403 GET https://storage.googleapis.com/storage/v1/b/closed: no access')
    error.code = 403
    raise error

  monkeypatch.setattr(buckets.Client, 'get_bucket', forbidden)
  with pytest.raises(UserError, match=r'\(403 GET .*account storage.buckets.get.*from step 2$'):
    fill('gs://closed/run', [2.0, 1.0], keep=1)  # Orbax asks once for each bucket
  monkeypatch.setattr(buckets.Endpoint, 'writable', False)
  with pytest.raises(UserError, match=r'\(PERMISSION_DENIED: .*allow this .*from the beginning$'):
    fill('gs://closed/another', [3.0])


def test_damage_in_a_bucket_falls_back_to_the_one_before(bucket_of_runs, capsys):
  checkpoints = opened(PLACE)
  for step in (1, 2):
    checkpoints.save(step, of_params({'w': jax.random.normal(jax.random.key(step), 4096)}), {}, [])
  checkpoints.close()
  objects = bucket_of_runs.objects
  inside = [name for name in objects if name.startswith(in_bucket('2/variables/'))]
  biggest = max(inside, key=lambda name: len(objects[name][0]))
  content = bytearray(objects[biggest][0])
  content[len(content) // 2] ^= 1
  files.write_bytes(f'gs://{biggest}', bytes(content))
  restored, meta = opened(PLACE).restore(abstract(of_params({'w': jnp.zeros(4096)})))
  assert meta['step'] == 1
  np.testing.assert_array_equal(
    restored.params['a']['w'], jax.random.normal(jax.random.key(1), 4096)
  )
  assert f'set aside as {PLACE}/damaged_checkpoints/2' in capsys.readouterr().err
  assert opened(PLACE).steps() == [1]
  assert f'some/run/damaged_checkpoints/{biggest.removeprefix(in_bucket(""))}' in objects


def restored(folder):
  """The step that is restored of `fill`'s, and its description."""
  found = opened(folder, best='test/x').restore(abstract(state(0.0)))
  return None if found is None else found[1]['step']


def test_a_checkpoint_under_another_number_is_damage(tmp_path, capsys):
  fill(tmp_path, [1.0, 2.0])
  folder = tmp_path / 'checkpoints'
  shutil.rmtree(folder / '2')
  shutil.copytree(folder / '1', folder / '2')
  assert restored(tmp_path) == 1
  assert 'checkpoint 2 is damaged (it is that of step 1)' in capsys.readouterr().err
  assert sorted(path.name for path in folder.iterdir()) == ['1']


@pytest.mark.parametrize('kind', ['file', 'broken link', 'link to itself'])
def test_what_is_no_folder_is_not_passed_over(tmp_path, capsys, kind):
  fill(tmp_path, [1.0, 2.0])
  path = tmp_path / 'checkpoints' / '2'
  shutil.rmtree(path)
  if kind == 'file':
    path.write_text('')
  else:
    path.symlink_to('/nowhere/at/all' if kind == 'broken link' else '2')
  reader = Checkpoints(str(tmp_path), every=1, keep=2, best='', best_mode='min', read_only=True)
  assert reader.restore_weights(weights(abstract(state(0.0))))[1]['step'] == 1
  assert 'checkpoint 2 is damaged (it is no folder)' in capsys.readouterr().err
  assert restored(tmp_path) == 1
  again = opened(tmp_path)
  again.save(2, state(2.0), {}, [])
  again.close()
  assert opened(tmp_path).steps() == [1, 2]


@pytest.mark.parametrize('key, value', [('used', 7), ('best', {'lane_0': 0.5}), ('more', 1)])
def test_a_changed_value_of_a_description_is_damage(tmp_path, key, value):
  fill(tmp_path, [1.0, 2.0])
  path = tmp_path / 'checkpoints' / '2' / 'meta' / 'metadata'
  path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
  assert restored(tmp_path) == 1


def test_what_was_set_aside_before_stays(tmp_path):
  fill(tmp_path, [1.0])
  for _ in range(2):
    again = opened(tmp_path)
    again.save(2, state(2.0), {}, [])
    again.close()
    (tmp_path / 'checkpoints' / '2' / 'meta' / 'metadata').write_text('')
    assert restored(tmp_path) == 1
  assert sorted(path.name for path in (tmp_path / 'damaged_checkpoints').iterdir()) == ['2', '2-2']


def test_a_file_in_the_way_of_what_is_set_aside_is_one_sentence(tmp_path):
  fill(tmp_path, [1.0, 2.0])
  (tmp_path / 'damaged_checkpoints').write_text('a file')
  (tmp_path / 'checkpoints' / '2' / 'meta' / 'metadata').write_text('')
  with pytest.raises(UserError, match=r'cannot write to .*then goes on from step'):
    restored(tmp_path)
  assert (tmp_path / 'checkpoints' / '2').exists()


@pytest.mark.parametrize(
  'error, reason',
  [
    (PermissionError(13, 'Permission denied'), 'Permission denied'),
    (OSError(24, 'Too many open files'), 'Too many open files'),
    (ValueError('UNAVAILABLE: the bucket does not answer'), 'UNAVAILABLE'),
    (ValueError('INTERNAL: reading failed [Input/output error]'), 'Input/output error'),
  ],
)
@pytest.mark.parametrize('handler', ['JsonCheckpointHandler', 'StandardCheckpointHandler'])
def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(
  tmp_path, monkeypatch, error, reason, handler
):
  import orbax.checkpoint as ocp

  fill(tmp_path, [1.0, 2.0])

  def refuse(*arguments, **options):
    raise error

  monkeypatch.setattr(getattr(ocp, handler), 'restore', refuse)
  with pytest.raises(UserError, match=rf'checkpoints/2 cannot be read \({reason}\), and may be'):
    restored(tmp_path)
  assert opened(tmp_path).steps() == [1, 2] and not (tmp_path / 'damaged_checkpoints').exists()


@pytest.mark.parametrize('damage', ['noise', 'of another step'])
def test_a_best_that_is_not_known_is_said(tmp_path, capsys, damage):
  fill(tmp_path, [1.0, 2.0])
  folder = tmp_path / 'checkpoints'
  if damage == 'noise':
    (folder / '1' / 'meta' / 'metadata').write_text('')
  else:
    shutil.copy(folder / '2' / 'meta' / 'metadata', folder / '1' / 'meta' / 'metadata')
  assert opened(tmp_path, best='test/x').best_step() == 2
  assert 'checkpoint 1 is damaged (its description is unreadable or' in capsys.readouterr().err


@pytest.mark.parametrize('key, value', [('item_handlers', 7), ('metrics', []), (None, None)])
def test_orbax_fails_on_no_description_of_its_own(tmp_path, capsys, key, value):
  """It reads those of all checkpoints before it writes one."""
  fill(tmp_path, [1.0, 2.0])
  path = tmp_path / 'checkpoints' / '1' / '_CHECKPOINT_METADATA'
  path.write_text(json.dumps({**json.loads(path.read_text()), key: value}) if key else '[]')
  again = opened(tmp_path, keep=3)
  again.save(3, state(3.0), {}, [])
  again.close()
  assert opened(tmp_path).steps() == [1, 2, 3] and restored(tmp_path) == 3
  assert f'{path} is damaged and set aside' in capsys.readouterr().err
