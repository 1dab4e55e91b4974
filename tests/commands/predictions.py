"""What predict.py says of inputs, and what evaluation computes of the same examples."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from commands.predict_run import Request, predict_run
from data.section import open_testing
from data.unlabelled.base import InputRequest, Preparation
from data.unlabelled.tables import open_tables
from engine import restore
from engine.evaluators.batches import PerExample, Split, round_up
from errors import UserError

BATCH = 64


def arrays(workdir, tmp_path, *inputs, **options):
  predict_run(Request(workdir, inputs, out=f'{tmp_path}/out.npz', **options))
  return dict(np.load(tmp_path / 'out.npz'))


def table(capsys, workdir, *inputs, **options):
  """The lines on the terminal, in cells, without the head."""
  predict_run(Request(workdir, inputs, **options))
  lines = capsys.readouterr().out.splitlines()[1:]
  return [[each.strip() for each in line.split('  ') if each.strip()] for line in lines]


def piped(monkeypatch, content):
  monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(content)))


def refusal(workdir, *inputs, **options):
  with pytest.raises(UserError) as caught:
    predict_run(Request(workdir, inputs, **options))
  return str(caught.value)


def evaluated(workdir, lane=0):
  """What evaluation computes of each test example, and the examples."""
  restored = restore.restore_run(workdir, '')
  session = restored.session
  examples = open_testing(session.data, session.spec)
  size = round_up(min(BATCH, len(examples)), session.mesh)
  found = PerExample(session.objective.evaluate, session).over(
    restored.variables(lane), restored.key(lane), Split(lambda: examples, 0), size
  )
  parts = [batch.values for batch in found]
  values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  return values, examples.read(range(len(examples)))


def write_pictures(folder, images):
  folder.mkdir()
  for number, image in enumerate(images):
    PIL.Image.fromarray(image.squeeze()).save(folder / f'{number:05d}.png')
  return str(folder)


def inputs_of(workdir, *places):
  """The rows of tables as the run's model reads them, float32 [N, D]."""
  session = restore.restore_run(workdir, '').session
  asked = InputRequest(places, (), '', None, '', lambda: sys.stdin.buffer.read(), counting=None)
  reading = Preparation(workdir, session.data, {}, 'text', session.spec, (), ())
  examples = open_tables(asked, reading).examples
  return examples.read(range(len(examples)))['inputs']
