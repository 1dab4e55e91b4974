"""The weights of Inception-v3 go into the cache, if they are the published ones."""

import hashlib

import numpy as np
import pooch
import pytest

from commands import import_inception as importing
from errors import UserError
from metrics.features import inception
from metrics.features.inception import FILE, Inception
from tests.metrics.features.torch_files import archive, older, state, storage, tensor

NUMBERS = np.arange(6, dtype=np.float32)


def weights(make) -> bytes:
  """A file with the last layer of a small network."""
  floats = storage('0', 6, older=make is older)
  pickled = state(**{
    'fc.weight': tensor(floats, 0, (2, 2), (2, 1)),
    'fc.bias': tensor(floats, 4, (2,), (1,)),
  })  # fmt: skip
  return make(pickled, {'0': NUMBERS})


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'features' / FILE


def publish(content, monkeypatch):
  """Makes these bytes the published ones."""
  for module in (importing, inception):
    monkeypatch.setattr(module, 'CHECKSUM', hashlib.sha256(content).hexdigest()[:8])


@pytest.mark.parametrize('make', [archive, older])
def test_a_local_copy(make, cache, tmp_path, monkeypatch, capsys):
  content = weights(make)
  publish(content, monkeypatch)
  (tmp_path / 'copy.pth').write_bytes(content)
  importing.import_inception(str(tmp_path / 'copy.pth'))
  assert cache.read_bytes() == content and str(cache) in capsys.readouterr().out
  extractor = Inception()
  np.testing.assert_array_equal(extractor.parameters['fc']['kernel'], [[0, 2], [1, 3]])
  np.testing.assert_array_equal(extractor.parameters['fc']['bias'], [4, 5])
  assert extractor.checksum == hashlib.sha256(content).hexdigest()


def test_a_download(cache, monkeypatch):
  content = weights(older)
  publish(content, monkeypatch)

  def retrieve(url, known_hash, fname, path, downloader):
    assert url.endswith('/fid_weights/pt_inception-2015-12-05-6726825d.pth')
    (path / fname).write_bytes(content)

  monkeypatch.setattr(pooch, 'retrieve', retrieve)
  importing.import_inception('')
  assert cache.read_bytes() == content


def test_without_a_network(cache, monkeypatch):
  def retrieve(*_, **__):
    raise ConnectionError('no route')

  monkeypatch.setattr(pooch, 'retrieve', retrieve)
  with pytest.raises(UserError, match=r'cannot be downloaded \(ConnectionError\).*--from=FILE$'):
    importing.import_inception('')
  assert not cache.exists()


def test_another_file_is_refused(cache, tmp_path):
  (tmp_path / FILE).write_bytes(weights(older))
  with pytest.raises(UserError, match=r'is damaged or another file.*begin with 6726825d; give'):
    importing.import_inception(str(tmp_path / FILE))
  assert not cache.exists()


def test_no_file(cache, tmp_path, script):
  done = script('-m', 'tools.import_inception', f'--from={tmp_path / "none.pth"}')
  assert done.returncode == 2
  assert 'none.pth cannot be read (No such file or directory); give a whole copy' in done.stderr


def test_a_file_of_other_tensors_is_refused(cache, tmp_path, monkeypatch):
  content = archive(state(a=tensor(storage('0', 6), 0, (6,), (1,))), {'0': NUMBERS})
  publish(content, monkeypatch)
  (tmp_path / FILE).write_bytes(content)
  with pytest.raises(UserError, match=r'has no weights of Inception-v3 \(.fc\.weight'):
    importing.import_inception(str(tmp_path / FILE))
  assert not cache.exists()
