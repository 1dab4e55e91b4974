"""Folders of their own for every test, and what the tests of data share."""

import os
import pathlib
import shutil
import sysconfig

import jax
import numpy as np
import pytest

from data import source


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
  """No test reads or writes the user's cache or data sets."""
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)


@pytest.fixture(scope='session')
def prepared_root(tmp_path_factory):
  """A TFDS folder in which mnist5k is prepared, once for all tests."""
  root = tmp_path_factory.mktemp('tfds')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('ATELIER_CACHE', str(root / 'unused'))
    source.open_source('mnist5k', 'train', str(root))
  return root


@pytest.fixture
def mnist5k(prepared_root):
  """The training split of mnist5k."""
  return source.open_source('mnist5k', 'train', str(prepared_root))


@pytest.fixture
def mesh():
  """A mesh of one device."""
  devices = np.array(jax.devices()[:1]).reshape(1, 1, 1)
  return jax.sharding.Mesh(devices, ('data', 'fsdp', 'tensor'))


STOCK = os.environ.get('TFDS_DATA_DIR', '')  # read before the fixture above hides it


@pytest.fixture
def stock_root():
  """The TFDS folder with a stock fashion_mnist."""
  if not STOCK or not (pathlib.Path(STOCK) / 'fashion_mnist').is_dir():
    pytest.skip('TFDS_DATA_DIR names no folder with a prepared fashion_mnist')
  return pathlib.Path(STOCK)


@pytest.fixture
def shakespeare_root():
  """The TFDS folder with a stock tiny_shakespeare."""
  if not STOCK or not (pathlib.Path(STOCK) / 'tiny_shakespeare').is_dir():
    pytest.skip('TFDS_DATA_DIR names no folder with a prepared tiny_shakespeare')
  return pathlib.Path(STOCK)


@pytest.fixture(scope='session')
def library_root(tmp_path_factory):
  """A TFDS folder in which python_stdlib is prepared of some small files of the library."""
  real = pathlib.Path(sysconfig.get_paths()['stdlib'])
  library = tmp_path_factory.mktemp('library')
  for folder in ('json', 'tomllib', 'wsgiref'):
    shutil.copytree(real / folder, library / folder)
  for name in ('abc', 'bisect', 'code', 'colorsys', 'glob', 'heapq', 'sched', 'stat', 'this'):
    shutil.copy(real / f'{name}.py', library)
  for name in ('site-packages/mine.py', 'json/tests/test_all.py', 'encodings/table.py'):
    (library / name).parent.mkdir(parents=True, exist_ok=True)
    (library / name).write_text('left = out\n')
  (library / 'template.py').write_text('@(is no Python\n')
  root = tmp_path_factory.mktemp('tfds')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('ATELIER_CACHE', str(root / 'unused'))
    patch.setattr(sysconfig, 'get_paths', lambda: {'stdlib': str(library)})
    source.open_source('python_stdlib', 'train', str(root))
  return root


@pytest.fixture(scope='session')
def names_root(tmp_path_factory):
  """A TFDS folder in which names is prepared."""
  root = tmp_path_factory.mktemp('tfds')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('ATELIER_CACHE', str(root / 'unused'))
    source.open_source('names', 'train', str(root))
  return root


@pytest.fixture
def names(names_root):
  """A split of names, by its name."""
  return lambda split='train': source.open_source('names', split, str(names_root))


@pytest.fixture
def library(library_root):
  """The training split of the small python_stdlib."""
  return source.open_source('python_stdlib', 'train', str(library_root))
