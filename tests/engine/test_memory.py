"""Memory that the devices do not have is said before it is asked for, and never called a disk."""

import math
import os
import resource

import jax
import pytest

from engine import loop, memory
from engine.checkpoint import Checkpoints
from engine.memory import Need, check_memory, free_bytes, memory_errors, training_need
from engine.preflight import lane_sampler
from engine.session import open_session
from errors import UserError
from tests.engine.test_module_errors import SPEC, config_of


def test_the_state_is_counted_leaf_by_leaf():
  session = open_session(config_of('mlp', model__widths=(8,)), SPEC)
  parameters = 784 * 8 + 8 + 8 * 10 + 10
  need = training_need(session)
  assert need.parts['parameters'] == need.parts['gradients'] == 4 * parameters
  leaves = jax.tree.leaves(session.abstract.opt_state)
  assert need.parts['optimizers'] == sum(4 * math.prod(leaf.shape) for leaf in leaves)
  assert need.total == sum(need.parts.values())


def test_lanes_multiply_the_state_but_not_the_gradients():
  config = config_of('gan')
  one = training_need(open_session(config, SPEC))
  config.seeds = 3
  three = training_need(open_session(config, SPEC))
  assert three.parts['parameters'] == 3 * one.parts['parameters']
  assert three.parts['gradients'] == one.parts['gradients'] < one.parts['parameters']
  assert any('config.seeds' in way for way in three.smaller)


@pytest.mark.parametrize('widths, unit', [((10**9,), 'TB'), ((10**6, 10**5), 'TB')])
def test_a_model_that_cannot_be_held_is_refused_before_anything_is_made(tmp_path, widths, unit):
  with pytest.raises(UserError) as caught:
    loop.train(config_of('mlp', model__widths=widths), str(tmp_path / 'run'))
  said = str(caught.value)
  assert f' {unit} of memory' in said and 'GB free' in said, said
  assert 'config.modules.model.widths' in said and 'disk' not in said
  assert not (tmp_path / 'run').exists()


def test_need_is_compared_with_what_is_free(monkeypatch):
  need = Need({'examples': 600, 'state': 400}, ('less',))
  monkeypatch.setattr(memory, '_host_free', lambda: 1000 * jax.local_device_count())
  check_memory(need, 'the run')
  monkeypatch.setattr(memory, '_host_free', lambda: 1000 * jax.local_device_count() - 1)
  with pytest.raises(UserError, match=r'1 kB of memory \(examples 600 bytes, .*: less'):
    check_memory(need, 'the run')
  monkeypatch.setattr(memory, '_host_free', lambda: None)
  check_memory(need, 'the run')


@pytest.mark.parametrize('extra', [0, 10**9])
def test_a_limit_of_the_address_space_counts(extra, monkeypatch, tmp_path):
  pages, limit = 1000, 2**24 + extra
  (tmp_path / 'statm').write_text(f'{pages} 10 5 1 0 9 0\n')
  monkeypatch.setattr(memory, '_PAGES', tmp_path / 'statm')
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (limit, limit))
  assert free_bytes(jax.devices('cpu')[0]) == limit - pages * os.sysconf('SC_PAGE_SIZE')
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (resource.RLIM_INFINITY,) * 2)
  assert free_bytes(jax.devices('cpu')[0]) > limit


class Accelerator:
  """A device that says how much memory it has."""

  device_kind = 'some accelerator'

  def memory_stats(self):
    return {'bytes_limit': 1000, 'bytes_in_use': 300}


def test_a_device_with_memory_of_its_own_is_asked(monkeypatch):
  monkeypatch.setattr(jax, 'local_devices', lambda: [Accelerator()])
  assert free_bytes(Accelerator()) == 700
  check_memory(Need({'state': 700}, ()), 'the run')
  with pytest.raises(UserError, match='some accelerator has 700 bytes'):
    check_memory(Need({'state': 701}, ()), 'the run')


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
  (tmp_path / 'memory.max').write_text('1000\n')
  (tmp_path / 'memory.current').write_text('900\n')
  (tmp_path / 'memory.stat').write_text('anon 500\ninactive_file 200\nactive_file 50\n')
  monkeypatch.setattr(memory, '_CONTAINERS', ((tmp_path, 'memory.max', 'memory.current'),))
  assert free_bytes(jax.devices()[0]) == 350
  (tmp_path / 'memory.max').write_text('max\n')
  assert free_bytes(jax.devices()[0]) > 2**20


def test_running_out_is_said_as_memory():
  kind = jax.errors.JaxRuntimeError
  for error in (
    kind('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 46000000000 bytes.'),
    kind('INTERNAL: Error dispatching computation: Out of memory allocating 640000000 bytes.'),
    MemoryError('Unable to allocate 7.28 TiB for an array'),
  ):
    with pytest.raises(UserError, match=r'memory of this machine does not suffice.*smaller batch'):
      with memory_errors('a smaller batch'):
        raise error
  for error in (kind('INTERNAL: something else'), ValueError('RESOURCE_EXHAUSTED')):
    with pytest.raises(type(error)), memory_errors('a smaller batch'):
      raise error


def test_memory_in_training_is_no_full_disk(tmp_path, monkeypatch):
  def out(*arguments):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.')

  monkeypatch.setattr(loop._Trainer, 'run', out)
  with pytest.raises(UserError, match=r'memory of .*config\.train\.accumulate') as caught:
    loop.train(config_of('mlp', model__widths=(8,)), str(tmp_path / 'run'))
  assert 'disk' not in str(caught.value) and 'space' not in str(caught.value)


def test_a_checkpoint_that_memory_cannot_hold_is_not_damaged(tmp_path, monkeypatch):
  import orbax.checkpoint as ocp

  config = config_of('mlp', model__widths=(8,))
  config.train.update(steps=1, epochs=0.0)
  workdir = str(tmp_path / 'run')
  loop.train(config, workdir)

  def out(*arguments):
    raise MemoryError

  monkeypatch.setattr(ocp.StandardCheckpointer, 'restore', out)
  config.train.steps = 2
  with pytest.raises(UserError, match='memory of this machine'):
    loop.train(config, workdir)
  checkpoints = Checkpoints(workdir, every=1, keep=1, best='', best_mode='min')
  assert checkpoints.steps() == [1] and not (tmp_path / 'run' / 'damaged_checkpoints').exists()


def test_examples_that_do_not_fit_are_refused(tmp_path, monkeypatch):
  config = config_of('mlp', model__widths=(8,))
  need = training_need(open_session(config, SPEC)).total * jax.local_device_count()
  monkeypatch.setattr(memory, '_host_free', lambda: need)
  with pytest.raises(UserError, match=r'examples .*config\.data\.resident_mb=0'):
    loop.train(config, str(tmp_path / 'run'))


def test_samples_beyond_all_memory_are_refused_before_the_first_step(monkeypatch):
  config = config_of('gan')
  monkeypatch.setattr(memory, 'free_bytes', lambda _: 10**5)  # Of 64 samples half.
  with pytest.raises(UserError, match=r'drawing samples needs .* a smaller config\.train\.samples'):
    lane_sampler(open_session(config, SPEC))
