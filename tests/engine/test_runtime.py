"""What the process is set to before jax starts."""

from engine import runtime


def _raised(filename, text):
  """An exception with a traceback that begins in a file of this name."""
  code = compile(f'raise RuntimeError({text!r})', filename, 'exec')
  try:
    exec(code)
  except RuntimeError as error:
    return error.with_traceback(error.__traceback__.tb_next)


def test_late_writes_after_one_that_failed_are_not_shown(capsys):
  closed = 'Event loop is closed'
  for filename, text, shown in (
    ('/usr/lib/python3.11/asyncio/base_events.py', closed, False),
    ('/usr/lib/python3.11/asyncio/base_events.py', 'something else', True),
    ('train.py', closed, True),
  ):
    error = _raised(filename, text)
    runtime._without_late_writes(RuntimeError, error, error.__traceback__)
    assert (text in capsys.readouterr().err) == shown
  runtime._without_late_writes(ValueError, ValueError('a bug'), None)
  assert 'ValueError: a bug' in capsys.readouterr().err
