"""Builders that share a name with TFDS's own give what those give."""

import gzip
import hashlib
import http.server
import importlib
import io
import pathlib
import struct
import tarfile
import threading

import numpy as np
import pytest

import errors
from data import source
from data.tfds import idx, raw_files
from data.tfds.builders import cifar10, mnist

STOCK_CLASSES = {
  'mnist': ('tensorflow_datasets.image_classification.mnist', 'MNIST'),
  'fashion_mnist': ('tensorflow_datasets.image_classification.mnist', 'FashionMNIST'),
  'cifar10': ('tensorflow_datasets.image_classification.cifar', 'Cifar10'),
}


@pytest.mark.parametrize('name', STOCK_CLASSES)
def test_name_version_features_and_raw_files_are_those_of_tfds(name, tmp_path):
  import tensorflow_datasets as tfds

  module, stock_class = STOCK_CLASSES[name]
  stock = getattr(importlib.import_module(module), stock_class)(data_dir=tmp_path)
  (ours_class,) = (
    entry
    for entry in vars(importlib.import_module(f'data.tfds.builders.{name}')).values()
    if isinstance(entry, type) and entry.__module__ == f'data.tfds.builders.{name}'
  )
  ours = ours_class(data_dir=tmp_path)
  assert (ours.name, str(ours.version)) == (stock.name, str(stock.version))
  assert ours.info.features.to_json() == stock.info.features.to_json()
  assert ours.info.features['label'].names == stock.info.features['label'].names
  folder = pathlib.Path(tfds.__file__).parent / 'url_checksums'
  rows = [line.split('\t') for line in (folder / f'{name}.txt').read_text().splitlines()]
  assert {(entry.url, entry.sha256) for entry in ours.RAW.values()} == {
    (url, digest) for url, _, digest, _ in rows
  }


def idx_file(array):
  header = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
  return gzip.compress(header + array.tobytes())


def test_idx_round_trip(tmp_path):
  array = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
  (tmp_path / 'file').write_bytes(idx_file(array))
  np.testing.assert_array_equal(idx.read(tmp_path / 'file'), array)
  (tmp_path / 'file').write_bytes(gzip.compress(b'\0\0\x0d\1aaaa'))
  with pytest.raises(ValueError, match='not an IDX file'):
    idx.read(tmp_path / 'file')


def small_mnist(monkeypatch, n):
  """Makes the mnist builder expect small stand-ins; returns their bytes and arrays by key."""
  rng = np.random.default_rng(1)
  arrays = {
    'train_images': rng.integers(0, 256, (n, 28, 28), np.uint8),
    'train_labels': (np.arange(n) % 10).astype(np.uint8),
    'test_images': rng.integers(0, 256, (4, 28, 28), np.uint8),
    'test_labels': np.array([3, 1, 4, 1], np.uint8),
  }
  files = {key: idx_file(array) for key, array in arrays.items()}
  entries = {
    key: entry._replace(url='http://127.0.0.1:9/' + entry.filename, sha256=digest(files[key]))
    for key, entry in mnist.MNIST.RAW.items()
  }
  monkeypatch.setattr(mnist.MNIST, 'RAW', entries)
  return files, arrays


def digest(content):
  return hashlib.sha256(content).hexdigest()


def put(folder, files, names):
  folder.mkdir(parents=True, exist_ok=True)
  for key, content in files.items():
    (folder / names[key]).write_bytes(content)


@pytest.mark.parametrize('place', ['manual/mnist', 'manual', 'mnist'])
def test_raw_files_are_found_in_the_folders_of_tfds(tmp_path, monkeypatch, place):
  files, arrays = small_mnist(monkeypatch, 30)
  cached = place == 'mnist'
  names = {
    key: raw_files._cached_name(entry) if cached else entry.filename
    for key, entry in mnist.MNIST.RAW.items()
  }
  put(tmp_path / 'downloads' / place, files, names)
  got = source.open_source('mnist', 'train', str(tmp_path))
  examples = got.read(range(30))
  rows = np.lexsort(examples['image'].reshape(30, -1).T)
  wanted = np.lexsort(arrays['train_images'].reshape(30, -1).T)
  np.testing.assert_array_equal(examples['image'][rows, ..., 0], arrays['train_images'][wanted])
  np.testing.assert_array_equal(examples['label'][rows], arrays['train_labels'][wanted])


def test_raw_files_with_another_hash_are_never_used(tmp_path, monkeypatch):
  files, _ = small_mnist(monkeypatch, 30)
  names = {key: entry.filename for key, entry in mnist.MNIST.RAW.items()}
  damaged = {**files, 'train_images': files['train_images'][:-1] + b'x'}
  put(tmp_path / 'downloads' / 'manual', damaged, names)
  with pytest.raises(errors.UserError, match=r'train-images.*its SHA-256 is wrong'):
    source.open_source('mnist', 'train', str(tmp_path))
  put(tmp_path / 'downloads' / 'manual' / 'mnist', files, names)  # the right one may be elsewhere
  assert len(source.open_source('mnist', 'train', str(tmp_path))) == 30


@pytest.fixture
def server(tmp_path):
  """A web server; returns its address and the folder whose files it serves."""
  folder = tmp_path / 'there'
  folder.mkdir()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *of):
      pass

    def __init__(self, *of, **options):
      super().__init__(*of, directory=str(folder), **options)

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{running.server_port}', folder
    running.shutdown()


def test_downloads_are_checked_and_kept_as_tfds_keeps_them(tmp_path, server, capfd):
  from etils import epath
  from tensorflow_datasets.core.download import resource

  address, there = server
  (there / 'file.gz').write_bytes(b'content')
  url, folder = f'{address}/file.gz', tmp_path / 'downloads'
  with pytest.raises(errors.UserError, match='another SHA-256'):
    raw_files.locate(raw_files.Raw(url, digest(b'other')), 'some', [folder])
  with pytest.raises(errors.UserError, match='404'):
    raw_files.locate(raw_files.Raw(f'{address}/none.gz', digest(b'')), 'some', [folder])
  assert [path for path in folder.rglob('*') if path.is_file()] == []
  capfd.readouterr()
  for _ in range(2):
    path = raw_files.locate(raw_files.Raw(url, digest(b'content')), 'some', [folder])
    assert path.read_bytes() == b'content' and path.parent == folder / 'some'
  assert resource.is_locally_cached(epath.Path(path))
  assert capfd.readouterr().err == f'downloading {url}\n'


def small_cifar(path, n):
  """Writes a stand-in for the CIFAR-10 archive; returns images [5 * n, 32, 32, 3] and labels."""
  rng = np.random.default_rng(2)
  images = rng.integers(0, 256, (6 * n, 32, 32, 3), np.uint8)
  labels = (np.arange(6 * n) % 10).astype(np.uint8)
  rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(6 * n, -1)], axis=1)
  parts = [*(f'data_batch_{i}.bin' for i in range(1, 6)), 'test_batch.bin']
  contents = {name: rows[i * n : (i + 1) * n].tobytes() for i, name in enumerate(parts)}
  contents['batches.meta.txt'] = '\n'.join(f'class {i}' for i in range(10)).encode() + b'\n\n'
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in contents.items():
      entry = tarfile.TarInfo('cifar-10-batches-bin/' + name)
      entry.size = len(content)
      archive.addfile(entry, io.BytesIO(content))
  return images, labels


def test_cifar10_from_an_archive_of_the_same_layout(tmp_path, monkeypatch):
  manual = tmp_path / 'downloads' / 'manual'
  manual.mkdir(parents=True)
  archive = manual / 'cifar-10-binary.tar.gz'
  images, labels = small_cifar(archive, 4)
  entry = cifar10.Cifar10.RAW['archive']._replace(sha256=digest(archive.read_bytes()))
  monkeypatch.setattr(cifar10.Cifar10, 'RAW', {'archive': entry})
  for split, wanted in (('train', slice(0, 20)), ('test', slice(20, 24))):
    got = source.open_source('cifar10', split, str(tmp_path))
    assert got.spec.features['image'] == ((32, 32, 3), 'uint8')
    examples = got.read(range(len(got)))
    rows = np.lexsort(examples['image'].reshape(len(got), -1).T)
    order = np.lexsort(images[wanted].reshape(len(got), -1).T)
    np.testing.assert_array_equal(examples['image'][rows], images[wanted][order])
    np.testing.assert_array_equal(examples['label'][rows], labels[wanted][order])
  names = (tmp_path / 'cifar10' / '3.0.2' / 'label.labels.txt').read_text().split('\n')
  assert names[:2] == ['class 0', 'class 1']


def test_stock_fashion_mnist_is_read_as_it_is(stock_root):
  got = source.open_source('fashion_mnist', 'train', str(stock_root))
  assert got.spec.n == 60_000 and got.spec.num_classes == 10
  examples = got.read([0, 59_999])
  assert examples['image'].shape == (2, 28, 28, 1) and examples['image'].std() > 10
