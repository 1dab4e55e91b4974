"""The commit that run.json names, and what there is where no commit is known."""

import os
import subprocess

import pytest

from engine.code_version import code_version


@pytest.fixture
def checkout(tmp_path):
  """A repository with a commit of the one file that is looked for."""
  root = tmp_path / 'checkout'
  (root / 'engine').mkdir(parents=True)
  (root / 'engine/code_version.py').write_text('x = 1\n')
  git(root, 'init', '-q')
  git(root, 'add', '.')
  commit(root)
  return root


def git(root, *words):
  return subprocess.run(
    ['git', '-C', root, *words], check=True, capture_output=True, text=True
  ).stdout.strip()


def commit(root):
  git(root, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-q', '-m', 'x')


def test_the_commit_and_whether_code_differs(checkout):
  head = git(checkout, 'rev-parse', 'HEAD')
  (checkout / 'digits.png').write_text('a picture that somebody drew')
  assert code_version(checkout) == {'commit': head, 'changed': False}
  (checkout / 'models').mkdir()
  (checkout / 'models/mine.py').write_text('')
  assert code_version(checkout) == {'commit': head, 'changed': True}
  (checkout / 'models/mine.py').unlink()
  (checkout / 'engine/code_version.py').write_text('x = 2\n')
  assert code_version(checkout)['changed']


def test_a_repository_around_the_project_is_not_its_own(checkout, monkeypatch):
  inside = checkout / 'vendored'
  (inside / 'engine').mkdir(parents=True)
  (inside / 'engine/code_version.py').write_text('')
  assert code_version(inside) is None
  # As in a hook of git, which names its own repository to all it starts.
  monkeypatch.setenv('GIT_DIR', str(checkout / '.git'))
  assert code_version(inside) is None


def test_no_checkout_no_commit_and_no_git(tmp_path, checkout, monkeypatch):
  (tmp_path / 'unpacked').mkdir()
  assert code_version(tmp_path / 'unpacked') is None
  git(checkout, 'update-ref', '-d', 'HEAD')
  assert code_version(checkout) is None, 'a repository without a commit'
  commit(checkout)
  assert code_version(checkout) is not None
  monkeypatch.setenv('PATH', os.devnull)
  assert code_version(checkout) is None
