"""Which commit of this project is running."""

import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PATIENCE = 10.0  # seconds for each call of git


def code_version(root: Path = ROOT) -> dict[str, Any] | None:
  """Returns the commit of a checkout and whether code differs from it.

  Args:
    root: of the project.

  Returns:
    `{'commit': …, 'changed': …}`, where a changed file is one that git tracks, or Python code that
    it does not. None where `root` is no checkout or git is missing.
  """
  # A folder in somebody's other repository is no checkout of this project.
  if _git(root, 'ls-files', '--error-unmatch', 'engine/code_version.py') is None:
    return None
  commit = _git(root, 'rev-parse', 'HEAD')
  changes = _git(root, 'status', '--porcelain', '--untracked-files=all', '--', '.')
  if commit is None or changes is None:
    return None
  changed = any(not line.startswith('??') or _is_code(line) for line in changes.splitlines())
  return {'commit': commit.strip(), 'changed': changed}


def _is_code(line: str) -> bool:
  return line.strip('"').endswith('.py')


def _git(root: Path, *words: str) -> str | None:
  """The output of a git command in `root`; None where it fails, or there is no git."""
  # Set by a hook of git, they would name another repository; nothing may be locked or asked for.
  environment = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
  environment |= {'GIT_OPTIONAL_LOCKS': '0', 'GIT_TERMINAL_PROMPT': '0'}
  try:
    done = subprocess.run(
      ['git', '-C', str(root), *words],
      env=environment,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors='replace',
      timeout=_PATIENCE,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout if done.returncode == 0 else None
