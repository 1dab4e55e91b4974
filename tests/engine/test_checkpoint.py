"""Checkpoints on a small tree: latest and best, damage, other structures, NaN."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.checkpoint import Checkpoints, fingerprint
from errors import UserError


def state(value, size=8):
  return {'a': {'w': jnp.full(size, value), 'i': jnp.int32(3)}, 'key': jax.random.key(1)}


def abstract(tree):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def opened(folder, keep=2, best='', mode='min'):
  return Checkpoints(str(folder), every=1, keep=keep, best=best, best_mode=mode)


def fill(folder, values, **options):
  """Saves step i + 1 with the metric values[i]."""
  checkpoints = opened(folder, best='eval/x', **options)
  for i, value in enumerate(values):
    checkpoints.save(i + 1, state(float(i + 1)), {'used': i}, {'eval/x': value})
  checkpoints.close()


def test_round_trip_with_what_stands_beside_it(tmp_path):
  checkpoints = opened(tmp_path)
  checkpoints.save(5, state(2.5), {'used': 640, 'seed': 7}, {})
  checkpoints.close()
  restored, meta = opened(tmp_path).restore(abstract(state(0.0)))
  np.testing.assert_array_equal(restored['a']['w'], np.full(8, 2.5, np.float32))
  assert jax.random.key_data(restored['key']).tolist() == [0, 1]
  assert (meta['step'], meta['used'], meta['seed']) == (5, 640, 7)


def test_the_newest_are_kept(tmp_path):
  fill(tmp_path, [3.0, 2.0, 1.0], keep=2)
  assert opened(tmp_path).steps() == [2, 3]


@pytest.mark.parametrize('mode, best', [('min', 2), ('max', 4)])
def test_the_best_is_kept_too_and_over_a_restart(tmp_path, mode, best):
  fill(tmp_path, [5.0, 1.0, 4.0, 9.0, 3.0, 3.5], keep=1, mode=mode)
  assert opened(tmp_path).steps() == [best, 6]
  again = opened(tmp_path, keep=1, best='eval/x', mode=mode)
  again.save(7, state(7.0), {}, {'eval/x': 4.5})
  again.close()
  assert opened(tmp_path, best='eval/x', mode=mode).steps() == [best, 7]
  assert opened(tmp_path, best='eval/x', mode=mode).best_step() == best


@pytest.mark.parametrize('mode', ['min', 'max'])
def test_a_nan_is_never_the_best(tmp_path, mode):
  fill(tmp_path, [2.0, float('nan'), 2.5, 3.0], keep=1, mode=mode)
  best = opened(tmp_path, best='eval/x', mode=mode).best_step()
  assert best == (1 if mode == 'min' else 4)


def biggest_file(folder):
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def flip(folder):
  path = biggest_file(folder / 'state' / 'ocdbt.process_0')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


DAMAGES = {
  'flipped bit': flip,
  'truncated': lambda f: biggest_file(f / 'state').write_bytes(b''),
  'no state': lambda f: __import__('shutil').rmtree(f / 'state'),
  'empty': lambda f: (__import__('shutil').rmtree(f), f.mkdir()),
  'no meta': lambda f: (f / 'meta' / 'metadata').write_text('{'),
  'empty metrics': lambda f: (f / 'metrics' / 'metrics').write_text(''),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_falls_back_to_the_one_before(tmp_path, damage, capsys):
  checkpoints = opened(tmp_path, best='eval/x')
  for step in (1, 2):
    values = np.random.default_rng(step).normal(size=4096).astype(np.float32)
    checkpoints.save(step, {'w': jnp.asarray(values)}, {}, {'eval/x': 1.0})
  checkpoints.close()
  DAMAGES[damage](tmp_path / 'checkpoints' / '2')
  again = opened(tmp_path, best='eval/x')
  restored, meta = again.restore(abstract({'w': jnp.zeros(4096)}))
  # The state itself is whole when only its metrics are gone.
  wanted = 2 if damage == 'empty metrics' else 1
  assert meta['step'] == wanted
  np.testing.assert_array_equal(
    restored['w'], np.random.default_rng(wanted).normal(size=4096).astype(np.float32)
  )
  if wanted == 1:
    assert 'set aside' in capsys.readouterr().err
    assert (tmp_path / 'checkpoints' / '2.broken').exists()
  # And training goes on, saving the same step again.
  again.save(2 if wanted == 1 else 3, {'w': restored['w']}, {}, {'eval/x': 0.5})
  again.close()
  assert opened(tmp_path).steps()[-1] == (2 if wanted == 1 else 3)


def test_nothing_is_left_when_all_are_damaged(tmp_path):
  fill(tmp_path, [1.0])
  (tmp_path / 'checkpoints' / '1' / 'meta' / 'metadata').write_text('')
  assert opened(tmp_path).restore(abstract(state(0.0))) is None


def test_another_structure_is_refused_and_left_alone(tmp_path):
  fill(tmp_path, [1.0])
  for target, part in (
    ({**state(0.0), 'b': jnp.zeros(2)}, 'missing|extra'),
    (state(0.0, size=9), 'another shape: a/w'),
    ({'a': {'w': jnp.zeros(8)}, 'key': jax.random.key(0)}, 'extra: a/i'),
    (
      {'a': {'w': jnp.zeros(8, jnp.bfloat16), 'i': jnp.int32(0)}, 'key': jax.random.key(0)},
      'another shape: a/w',
    ),
  ):
    with pytest.raises(UserError, match=part):
      opened(tmp_path).restore(abstract(target))
  assert opened(tmp_path).steps() == [1]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
  checkpoints = opened(tmp_path)
  checkpoints.save(1, state(1.0), {}, {})
  checkpoints.wait()

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoints._manager(), 'save', full)
  with pytest.raises(UserError, match=r'No space left on device.*goes on from step 1'):
    checkpoints.save(2, state(2.0), {}, {})


def test_fingerprint_sees_every_bit_and_the_order():
  base = state(1.0)
  before = fingerprint(base)
  for i in (0, 7):
    changed = {
      **base,
      'a': {**base['a'], 'w': base['a']['w'].at[i].set(np.nextafter(np.float32(1), np.float32(2)))},
    }
    assert fingerprint(changed)['a/w'] != before['a/w']
  mixed = jnp.arange(8.0)
  assert fingerprint({'w': mixed})['w'] != fingerprint({'w': mixed[::-1]})['w']
  json.dumps(before)
