"""Curves of seeds as CSV and PNG, and runs over them."""

import numpy as np
import pytest
from PIL import Image

from commands import curves
from errors import UserError
from tests.tools.test_runs import line, make

FD = 'samples/fd_pixels14_1k-test'


def seed(folder, number, shift, steps=(10, 20, 30)):
  lines = [
    {**line(step, test_loss=step / 10 + shift), FD: 5.0 - step / 10 + shift} for step in steps
  ]
  return make(folder, lines, seed=number)


@pytest.fixture
def seeds(tmp_path):
  """Three seeds, whose values at step 10 are 1, 2 and 6; the last one logged fewer steps."""
  for number, shift in enumerate((0.0, 1.0, 5.0)):
    seed(tmp_path / f'runs/seed_{number}', number, shift, (10, 20, 30)[: 3 - (number == 2)])
  return [str(tmp_path / 'runs')]


def write(seeds, tmp_path, figures=('test/loss', 'samples/fd'), band=curves.MIN_MAX):
  out, table = tmp_path / 'new/a.png', tmp_path / 'new/a.csv'
  curves.write_curves(seeds, figures, str(out), str(table), band)
  return out, table


def test_mean_and_band_of_seeds(seeds, tmp_path, capsys):
  out, table = write(seeds, tmp_path)
  assert table.read_text().splitlines() == [
    'figure,step,mean,low,high,seeds',
    'test/loss,10,3,1,6,3',
    'test/loss,20,4,2,7,3',
    f'{FD},10,6,4,9,3',
    f'{FD},20,5,3,8,3',
  ]
  assert f'test/loss, {FD} of 3 seeds' in capsys.readouterr().out
  assert out.stat().st_size < 60_000
  with Image.open(out) as picture:
    assert picture.size[0] > 800  # two panels beside each other


def test_the_standard_deviation_as_band(seeds, tmp_path):
  _, table = write(seeds, tmp_path, ['test/loss'], curves.DEVIATION)
  curve = curves.from_csv(str(table))['test/loss']
  deviation = np.std([1, 2, 6], ddof=1)
  np.testing.assert_allclose(curve.high - curve.mean, deviation, rtol=1e-5)
  np.testing.assert_allclose(curve.mean - curve.low, deviation, rtol=1e-5)
  one = curves.curve_of([{1: 2.0}], curves.DEVIATION)
  assert (one.low, one.high, one.seeds) == (2.0, 2.0, 1)


def test_lanes_are_seeds_too(tmp_path):
  lanes = {
    'test/loss': 3.0, 'test/loss/sd': 9.0, 'test/loss/seed_0': 2.0, 'test/loss/seed_1': 4.0,
    'test/loss/Shirt': 100.0,
  }  # fmt: skip
  folder = make(tmp_path / 'lanes', [{**line(10), **lanes}], seed=0)
  _, table = write([folder], tmp_path, ['test/loss'])
  assert table.read_text().splitlines()[1:] == ['test/loss,10,3,2,4,2']


def test_what_is_written_is_read_back():
  steps = np.array([100, 2_000_000])
  curve = curves.Curve(steps, *(np.array([1.25e-7, -3.0]) * k for k in (1, 2, 3)), 4)
  text = curves.to_csv({'a/b': curve, 'a/c, d': curve})
  back = curves.from_csv_text(text)
  assert [*back] == ['a/b', 'a/c, d'] and back['a/b'].seeds == 4
  for mine, other in zip(curve[:4], back['a/c, d'][:4]):
    np.testing.assert_allclose(mine, other, rtol=1e-6)


def coloured(out, colour):
  with Image.open(out) as picture:
    pixels = np.asarray(picture.convert('RGB')).astype(int)
  return int((np.abs(pixels - colour).max(axis=2) < 12).sum())


def test_a_run_is_drawn_over_the_band(seeds, tmp_path, capsys):
  empty, table = write(seeds, tmp_path, ['test/loss'])
  grey, blue = (0xBD, 0xBD, 0xBD), (0x00, 0x72, 0xB2)
  assert coloured(empty, grey) > 2000 and coloured(empty, blue) == 0
  mine = seed(tmp_path / 'mine', 9, 4.0)
  out = tmp_path / 'mine.png'
  capsys.readouterr()
  curves.plot_against([mine], str(table), [], str(out))
  said = capsys.readouterr().out
  assert f'{mine}: test/loss is 6 at step 20, within 2 to 7 (mean 4)' in said
  assert 'within the band at 2 of 2 steps' in said
  assert coloured(out, grey) > 1000 and coloured(out, blue) > 50
  far = seed(tmp_path / 'far', 9, 40.0)
  curves.plot_against([far], str(table), ['test/loss'], str(out))
  assert 'above 2 to 7 (mean 4); within the band at 0 of 2 steps' in capsys.readouterr().out


def test_a_run_that_logs_at_other_steps():
  curve = curves.curve_of([{10: 1.0, 20: 2.0}], curves.MIN_MAX)
  assert 'has no step that the curve has' in curves.comparison('a', curve, {15: 1.0})
  assert 'at step 10, below 1 to 1' in curves.comparison('a', curve, {10: 0.5, 15: 1.0})


def test_what_cannot_be_drawn_is_one_sentence(seeds, tmp_path):
  _, table = write(seeds, tmp_path)
  png = str(tmp_path / 'x.png')
  other = make(tmp_path / 'other', [line(10, test_loss=1)], objective_steps=7)
  with pytest.raises(UserError, match=r'are no seeds of one curve: train\.objective_steps: '):
    write([*seeds, other], tmp_path)
  with pytest.raises(UserError, match=r'has no such figure \(did you mean "test/loss"\?\)'):
    write(seeds, tmp_path, ['test/los'])
  with pytest.raises(UserError, match='no step of the log in common'):
    write([*seeds, seed(tmp_path / 'late', 9, 0.0, (15,))], tmp_path)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='there is no run in'):
    write([str(tmp_path / 'empty')], tmp_path)
  with pytest.raises(UserError, match=r'--csv=.*\.txt must end in \.csv'):
    curves.write_curves(seeds, ['test/loss'], png, str(tmp_path / 'a.txt'), curves.MIN_MAX)
  lacking = make(tmp_path / 'lacking', [line(10, test_loss=1)])
  with pytest.raises(UserError, match=rf'{FD} of .* was not logged by .*lacking'):
    curves.plot_against([lacking], str(table), ['samples/fd'], png)
  with pytest.raises(UserError, match=r'--plot=test/accuracy: .* has no such figure'):
    curves.plot_against(seeds, str(table), ['test/accuracy'], png)


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('step,mean\n1,2\n', 'is no CSV of curves'),
    ('figure,step,mean,low,high,seeds\n', 'is no CSV of curves'),
    ('figure,step,mean,low,high,seeds\na,1,2,3,4,5\na,2,x,3,4,5\n', 'line 3 holds no step'),
    ('figure,step,mean,low,high,seeds\na,1,nan,3,4,5\n', 'line 2 holds no step'),
    ('figure,step,mean,low,high,seeds\na,1,2\n', 'line 2 holds no step'),
    (None, 'No such file'),
  ],
)
def test_a_table_that_is_none(text, said, tmp_path):
  table = tmp_path / 'a.csv'
  if text is not None:
    table.write_text(text)
  with pytest.raises(UserError, match=said):
    curves.from_csv(str(table))


def test_the_command(seeds, tmp_path, script):
  out, table = tmp_path / 'a.png', tmp_path / 'a.csv'
  done = script(
    '-m', 'tools.runs', *seeds, '--plot=test/loss,samples/fd', f'--csv={table}', f'--out={out}',
    '--band=sd',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  done = script('-m', 'tools.runs', *seeds, f'--against={table}', f'--out={out}')
  assert done.returncode == 0 and done.stdout.count(' (mean ') == 6, done.stderr
  for words, said in (
    ([f'--csv={table}', f'--out={out}'], 'needs the figures'),
    ([f'--against={table}'], 'together'),
    (['--band=sd'], 'no effect without --csv'),
  ):
    done = script('-m', 'tools.runs', *seeds, *words)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and said in done.stderr, done.stderr
