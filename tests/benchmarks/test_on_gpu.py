"""The measurements for a GPU: what each part runs, and that rows are written as they come."""

import json
from pathlib import Path

import pytest

from benchmarks import compare, on_gpu
from benchmarks.side import SideFailed
from commands import cli
from errors import UserError


def parsed(folder, *more):
  return on_gpu.parse([f'--out={folder}', '--device=cpu', *more])


def test_parts_are_checked_before_anything_runs(tmp_path, monkeypatch):
  assert parsed(tmp_path).parts == ['gpt2', 'exact', 'tests', 'families', 'quality']
  with pytest.raises(UserError, match=r'--part.*exakt.*exact'):
    parsed(tmp_path, '--part=exakt')
  monkeypatch.setattr(compare, 'gpu_of_jax', lambda: '')
  with pytest.raises(UserError, match='jax finds no GPU'):
    on_gpu.parse([f'--out={tmp_path}', '--part=exact'])
  monkeypatch.setattr(compare, '_printed', lambda *_: '')
  with pytest.raises(UserError, match='here jax finds none, torch finds none'):
    on_gpu.parse([f'--out={tmp_path}', '--part=gpt2'])


def test_the_variants_of_gpt2_are_options_of_the_config(tmp_path, monkeypatch):
  seen = []

  def compared(case, peer_python, rounds, seconds, threads, device, mode):
    seen.append((case.config, mode))
    if 'scan' in str(case.config):
      raise SideFailed('ours: out of memory')
    return dict(
      ours=30.0, peer=29.0, ratio=1.03, mfu={'ours': 0.4, 'peer': None},
      described={'ours': {'device': 'NVIDIA H200', 'version': 'jax 1'}, 'peer': {'version': 't'}},
    )  # fmt: skip

  monkeypatch.setattr(compare, 'compare', compared)
  rows = [*on_gpu.gpt2(parsed(tmp_path))]
  assert [row['options'] for row in rows] == [*on_gpu.GPT2]
  assert rows[0]['ratio'] == 1.03 and rows[0]['mfu_ours'] == 0.4
  assert rows[0]['card'] == 'NVIDIA H200' and rows[1]['failed'] == 'ours: out of memory'
  known = {*cli.load('configs/gpt2.py:124m').modules.model}
  for config, mode in seen:
    assert mode == 'compile'
    added = [flag for flag in config if '.modules.model.' in flag]
    assert {flag.split('.')[-1].split('=')[0] for flag in added} <= known


def test_every_config_that_is_trained_is_there():
  for flags in [*on_gpu.FAMILIES.values(), *(flags for flags, _ in on_gpu.RUNS.values())]:
    cli.load(flags[0].removeprefix('--config='))


def test_two_runs_are_compared_leaf_by_leaf(tmp_path, monkeypatch):
  """Here the second of each kind but `full` ends elsewhere."""
  made = []

  def train(args, flags, folder, uncached=False):
    assert uncached and f'--config.train.steps={args.steps}' in flags
    made.append(folder.name)
    meta = folder / 'checkpoints' / str(args.steps) / 'meta'
    meta.mkdir(parents=True)
    leaf = 'same' if 'full' in folder.name else folder.name
    (meta / 'metadata').write_text(json.dumps({'fingerprint': {'params': leaf}}))
    speed = {'default': 100.0, 'kernels': 97.0, 'full': 90.0}[folder.name.split('-')[1]]
    return {'seconds': 3.0, 'steps_per_second': speed, 'failed': ''}

  monkeypatch.setattr(on_gpu, '_train', train)
  rows = [*on_gpu.exact(parsed(tmp_path, '--only=mlp', '--steps=4'))]
  assert [(row['determinism'], row['equal'], row['of_default']) for row in rows] == [
    ('default', False, 1.0), ('kernels', False, 0.97), ('full', True, 0.9),
  ]  # fmt: skip
  assert len(made) == len({*made}) == 6


def test_rows_are_written_as_they_come(tmp_path, monkeypatch, capsys):
  def part(args):
    yield {'case': 'a|b', 'ratio': 1.23456}
    yield {'case': 'c', 'failed': None}
    raise KeyboardInterrupt

  monkeypatch.setattr(on_gpu, 'PARTS', {'exact': part})
  with pytest.raises(KeyboardInterrupt):
    on_gpu.main([f'--out={tmp_path}/new', '--device=cpu', '--part=exact'])
  assert len(json.loads(Path(tmp_path, 'new', 'exact.json').read_text())) == 2
  lines = Path(tmp_path, 'new', 'exact.md').read_text().splitlines()
  assert lines[0] == '| case | ratio | failed |' and lines[2] == '| a\\|b | 1.235 |  |'
  assert lines[3] == '| c |  | – |'
  monkeypatch.setattr(on_gpu, 'PARTS', {'exact': lambda args: iter(())})
  with pytest.raises(UserError, match='--only=none leaves no row of --part=exact'):
    on_gpu.main([f'--out={tmp_path}/new', '--device=cpu', '--part=exact', '--only=none'])


@pytest.mark.slow
def test_a_run_is_repeated_bit_for_bit_on_a_cpu(tmp_path):
  args = parsed(tmp_path, '--only=mlp', '--steps=3')
  rows = [*on_gpu.exact(args)]
  assert [row['failed'] for row in rows] == ['', '', ''] and all(row['equal'] for row in rows)
  with pytest.raises(UserError, match='holds a run already'):
    next(on_gpu.exact(args))
