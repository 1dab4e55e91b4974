"""What the process is set to before jax starts."""

import os
import sys
from types import TracebackType
from typing import NamedTuple

import pytest

from engine import runtime


class _Unraisable(NamedTuple):
  """What Python hands to `sys.unraisablehook`."""

  exc_type: type[BaseException]
  exc_value: BaseException
  exc_traceback: TracebackType | None
  err_msg: str | None
  object: object


def _raised(filename, text):
  """An exception with a traceback that begins in a file of this name."""
  code = compile(f'raise RuntimeError({text!r})', filename, 'exec')
  try:
    exec(code)
  except RuntimeError as error:
    return error.with_traceback(error.__traceback__.tb_next)


def test_late_writes_after_one_that_failed_are_not_shown(capsys, monkeypatch):
  unraisable = []
  monkeypatch.setattr(sys, '__unraisablehook__', unraisable.append)
  closed = 'Event loop is closed'
  for filename, text, shown in (
    ('/usr/lib/python3.11/asyncio/base_events.py', closed, False),
    ('/usr/lib/python3.11/asyncio/base_events.py', 'something else', True),
    ('train.py', closed, True),
  ):
    error = _raised(filename, text)
    runtime._show_uncaught(RuntimeError, error, error.__traceback__)
    assert (text in capsys.readouterr().err) == shown
    runtime._show_unraisable(_Unraisable(RuntimeError, error, error.__traceback__, None, None))
    assert (len(unraisable) == 1) == shown
    unraisable.clear()
  runtime._show_uncaught(ValueError, ValueError('a bug'), None)
  assert 'ValueError: a bug' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('filename', 'shown'),
  [
    ('/site-packages/orbax/checkpoint/_src/serialization/serialization.py', False),
    ('/home/orbax.py', True),
    ('/work/data/stream.py', True),
  ],
)
def test_late_reads_after_one_that_failed_are_not_shown(filename, shown, monkeypatch):
  unraisable = []
  monkeypatch.setattr(sys, '__unraisablehook__', unraisable.append)
  defined = {}
  exec(compile('async def read():\n  raise OSError("gone")', filename, 'exec'), defined)
  coroutine, error = defined['read'](), OSError('gone')
  runtime._show_unraisable(_Unraisable(OSError, error, None, None, coroutine))
  coroutine.close()
  assert len(unraisable) == shown


def test_a_platform_that_is_not_here_is_one_sentence(monkeypatch):
  refused = "Unable to initialize backend 'tpu': no libtpu.so"
  place = '/lib/jax/_src/xla_bridge.py'
  error = _raised(place, f"{refused} (set JAX_PLATFORMS='' to choose one)")
  for chosen, start in (('tpu', 'JAX_PLATFORMS=tpu is no platform'), ('', 'jax finds no device')):
    monkeypatch.setenv('JAX_PLATFORMS', chosen)
    told = runtime.device_error(error)
    assert told.startswith(start) and f'({refused});' in told
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  assert '(its package is not installed)' in runtime.device_error(_raised(place, ''))
  assert runtime.device_error(_raised('train.py', refused)) is None


@pytest.mark.parametrize(
  ('text', 'name', 'value'),
  [
    ('Invalid value "nope" for JAX flag jax_num_cpu_devices', 'JAX_NUM_CPU_DEVICES', 'nope'),
    ("invalid truth value 'x' for environment 'JAX_ENABLE_X64'", 'JAX_ENABLE_X64', 'x'),
  ],
)
def test_a_variable_that_jax_cannot_read_is_one_sentence(text, name, value, monkeypatch):
  error = _raised('/lib/jax/_src/config.py', text)
  monkeypatch.delenv(name, raising=False)
  assert runtime.device_error(error) is None
  monkeypatch.setenv(name, value)
  assert runtime.device_error(error) == (
    f'{name}={value} is no value that jax takes; correct it, or unset it'
  )


def test_a_variable_that_jax_cannot_read_is_told_by_the_command(script):
  done = script('train.py', '--config=configs/mlp.py', JAX_NUM_CPU_DEVICES='nope')
  assert done.returncode == 2
  assert done.stderr.startswith('error: JAX_NUM_CPU_DEVICES=nope is no value that jax takes')


@pytest.mark.parametrize(
  'installed, vendor, given, chosen',
  [
    (('libtpu',), '0x8086', {}, 'cpu'),
    (('libtpu',), '0x1ae0', {}, None),  # a TPU is attached
    ((), '0x8086', {}, None),
    (('libtpu', 'jax_plugins'), '0x8086', {}, None),  # there may be a GPU
    (('libtpu',), '0x8086', {'JAX_PLATFORMS': 'tpu'}, 'tpu'),
    (('libtpu',), '0x8086', {'JAX_FORCE_TPU_INIT': '1'}, None),
  ],
)
def test_a_compiler_for_tpus_is_no_tpu(installed, vendor, given, chosen, monkeypatch, tmp_path):
  (tmp_path / '0000:00:01').mkdir()
  (tmp_path / '0000:00:01' / 'vendor').write_text(f'{vendor}\n')
  monkeypatch.setattr(runtime, '_PCI_DEVICES', tmp_path)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: name in installed or None)
  monkeypatch.setattr(os, 'environ', dict(given))
  runtime._leave_out_tpus()
  assert os.environ.get('JAX_PLATFORMS') == chosen
