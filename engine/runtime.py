"""Settings of the process that must stand before jax starts, and of the compiler."""

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any

from data.folders import cache_dir

# jaxlib releases on which the CPU options below were measured: an unknown value of such an option
# aborts the process.
_TESTED_JAXLIB = ('0.10.2',)
# Where the system lists what is attached, and the vendor of TPUs.
_PCI_DEVICES, _GOOGLE = Path('/sys/bus/pci/devices'), '0x1ae0'


def prepare() -> None:
  """Call once, before jax is imported: memory, compilation cache, log noise."""
  if 'jax' in sys.modules:
    raise RuntimeError('engine.runtime.prepare() must run before jax is imported')
  _keep_large_buffers()
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache_dir() / 'xla'))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
  _leave_out_tpus()
  # Warnings of the C++ side are for its developers; errors stay.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
  sys.excepthook, sys.unraisablehook = _show_uncaught, _show_unraisable


def _show_uncaught(
  kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
  """Shows an exception that nobody caught, as Python does, but for late writes."""
  if not _is_late_write(error, trace):
    sys.__excepthook__(kind, error, trace)


def _show_unraisable(unraisable: Any) -> None:
  """Shows an exception that could not be raised, as Python does, but for late reads and writes."""
  late = _is_late_read(unraisable.object)
  if not late and not _is_late_write(unraisable.exc_value, unraisable.exc_traceback):
    sys.__unraisablehook__(unraisable)


def _is_late_read(raised_in: Any) -> bool:
  """Whether an exception was raised in one of Orbax's coroutines that nobody awaits any more.

  The arrays of a checkpoint are read by as many coroutines. Where one fails, which is told as an
  error, the others are dropped, and fail in turn where Python finalises them.
  """
  if not isinstance(raised_in, CoroutineType):
    return False
  return f'{os.sep}orbax{os.sep}' in raised_in.cr_code.co_filename


def _is_late_write(error: BaseException | None, trace: TracebackType | None) -> bool:
  """Whether an exception is of a write after one that failed.

  A checkpoint is written as many files by threads of TensorStore. Where one fails, which is told as
  an error, Orbax closes its event loop, and each of the others finds it closed.
  """
  closed = isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
  # An error that ends the program comes from the script, not from a call of TensorStore's own.
  return closed and trace is not None and 'asyncio' in trace.tb_frame.f_code.co_filename


def _leave_out_tpus() -> None:
  """Tells jax to use the CPU where libtpu is installed for its compiler alone (`plan.py`).

  libtpu else looks for a TPU at every start, and complains that there is none.
  """
  chosen = {'JAX_PLATFORMS', 'JAX_FORCE_TPU_INIT'} & os.environ.keys()
  others = importlib.util.find_spec('jax_plugins')
  if chosen or others or importlib.util.find_spec('libtpu') is None:
    return
  vendors = [path.read_text().strip() for path in _PCI_DEVICES.glob('*/vendor')]
  if _GOOGLE not in vendors:
    os.environ['JAX_PLATFORMS'] = 'cpu'


def _keep_large_buffers() -> None:
  """Tells glibc to keep freed memory: buffers over 32 MB are else mapped anew at each dispatch."""
  if sys.platform != 'linux':
    return
  mmap_threshold, trim_threshold = -3, -1
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 2**31 - 1)


def device_error(error: Exception) -> str | None:
  """Returns the sentence for what jax raises where it finds no device; None for another error.

  So does a variable of the environment that jax reads when it is imported and cannot understand.
  """
  frame = error.__traceback__
  while frame is not None and frame.tb_next is not None:
    frame = frame.tb_next
  file = '' if frame is None else frame.tb_frame.f_code.co_filename
  if file.endswith('jax/_src/config.py'):
    return _variable_error(str(error))
  if not file.endswith('jax/_src/xla_bridge.py'):
    return None
  # An assertion is how jax ends where a plugin, such as that for CUDA, is not installed.
  reason = (str(error).splitlines() or ['its package is not installed'])[0]
  reason = reason.partition(' (set JAX_PLATFORMS')[0]
  chosen = os.environ.get('JAX_PLATFORMS')
  if not chosen:
    return f'jax finds no device ({reason}); set JAX_PLATFORMS=cpu to compute on the CPU'
  return (
    f'JAX_PLATFORMS={chosen} is no platform of this machine ({reason}); unset it, or set it to cpu'
  )


def _variable_error(text: str) -> str | None:
  """The sentence for a variable that jax refused with a text that names it; None for none."""
  words = re.findall(r'\w+', text.upper())
  named = [name for name in words if name.startswith('JAX_') and name in os.environ]
  if not named:
    return None
  return f'{named[-1]}={os.environ[named[-1]]} is no value that jax takes; correct it, or unset it'


# Compiler options by platform that schedule collectives beside computation, for meshes of several
# devices (`config.train.latency_hiding`). On TPUs the latency-hiding scheduler itself is always on.
# GPU: https://docs.jax.dev/en/latest/gpu_performance_tips.html and
#   https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
# TPU: the options of the training recipes of https://github.com/AI-Hypercomputer/maxtext
#   (benchmarks/xla_flags_library.py); they can also stand in the variable LIBTPU_INIT_ARGS.
LATENCY_HIDING: Mapping[str, Mapping[str, bool]] = {
  'gpu': {
    'xla_gpu_enable_latency_hiding_scheduler': True,
    'xla_gpu_enable_pipelined_all_gather': True,
    'xla_gpu_enable_pipelined_all_reduce': True,
    'xla_gpu_enable_pipelined_reduce_scatter': True,
  },
  'tpu': {
    'xla_enable_async_all_gather': True,
    'xla_tpu_data_parallel_opt_different_sized_ops': True,
    'xla_tpu_enable_async_collective_fusion': True,
    'xla_tpu_enable_async_collective_fusion_fuse_all_gather': True,
    'xla_tpu_enable_async_collective_fusion_multiple_steps': True,
    'xla_tpu_enable_data_parallel_all_reduce_opt': True,
    'xla_tpu_overlap_compute_collective_tc': True,
  },
}


# Compiler options of GPUs by `config.train.determinism`; CPUs and TPUs repeat every bit anyway.
# https://openxla.org/xla/determinism: scatters, products, convolutions and attention have kernels
# that add in an order that changes from call to call, and the fastest kernel of each is chosen by
# timing it while compiling, so that another process may choose another. Without the expander a
# scatter that must be deterministic is a loop over its rows (openxla/xla pull request 34917).
DETERMINISM: Mapping[str, Mapping[str, bool]] = {
  'default': {},
  'kernels': {
    'xla_gpu_exclude_nondeterministic_ops': True,
    'xla_gpu_enable_scatter_determinism_expander': True,
  },
  'full': {
    'xla_gpu_deterministic_ops': True,
    'xla_gpu_enable_scatter_determinism_expander': True,
  },
}


def determinism_options(platform: str, determinism: str) -> dict[str, str | bool]:
  """Returns the options that `config.train.determinism` stands for on a platform; none but on GPUs.

  They are for every jit that computes figures or samples of a run.
  """
  return dict(DETERMINISM[determinism]) if platform == 'gpu' else {}


def compiler_options(
  platform: str = '', latency_hiding: bool = False, determinism: str = 'default'
) -> dict[str, str | bool]:
  """Returns the options for the jit of a training step, or of other work as heavy.

  On a CPU convolutions leave YNNPACK, which is slower there than XLA's own path; products stay, and
  reductions join them: XLA itself sums a large array in many small passes.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'; '' for that of the devices here.
    latency_hiding: whether those of `LATENCY_HIDING` are among them.
    determinism: which of those of `DETERMINISM` are.
  """
  import jax
  import jaxlib

  platform = platform or jax.default_backend()
  options: dict[str, str | bool] = {}
  if platform == 'cpu' and jaxlib.__version__ in _TESTED_JAXLIB:
    kinds = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
    options['xla_cpu_experimental_ynn_fusion_type'] = kinds
  if latency_hiding:
    options.update(LATENCY_HIDING.get(platform, {}))
  return {**options, **determinism_options(platform, determinism)}


def versions() -> dict[str, str]:
  """Versions of Python and of what the figures of a run depend on."""
  import importlib.metadata as metadata
  import platform

  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'ml_collections')
  return {'python': platform.python_version(), **{name: metadata.version(name) for name in names}}
