import itertools
import json
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from engine import pictures
from engine.report import Counting, Report, Shown, last_step
from errors import UserError

OPTIONS = {'train.steps': 40, 'optimizer.name': 'adam', 'ema.on': True, 'data.classes': (3, 5)}
SHOWN = Shown(('seed_0',), ('eval',), '', OPTIONS, 'eval/x', ('tensorboard',))


def test_lines_past_the_checkpoint_are_dropped_and_so_is_a_torn_one(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"step": 4')
  Report(str(tmp_path), 20, 40, SHOWN, visible=True).close()
  assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [10, 20]


def test_a_line_has_the_named_fields(tmp_path, capsys):
  report = Report(str(tmp_path), 0, 40, SHOWN, visible=True)
  report.scalars(10, 2.5, [{'generator/loss': 1.25, 'eval/x': float('nan')}])
  report.scalars(20, None, [{'eval/x': 3.0}])
  report.close()
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert lines[0]['step'] == 10 and lines[0]['steps_per_second'] == 2.5
  assert lines[0]['generator/loss'] == 1.25 and lines[0]['eval/x'] is None
  assert lines[0]['wall_time'] > 1.7e9 and 'steps_per_second' not in lines[1]
  assert capsys.readouterr().out.splitlines() == [
    'step 10/40     2.5 steps/s  ETA 0:12     generator/loss 1.25',
    '     eval/x        nan',
    'step 20/40',
    '     eval/x          3',
  ]
  assert list(tmp_path.glob('events.out.tfevents.*'))


def test_a_log_file_hears_of_slow_steps(tmp_path, capsys, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  report = Report(str(tmp_path), 0, 40, SHOWN, visible=True)
  for step in range(1, 14):
    now[0] += 12.0
    report.progress(step, 1 / 12, [{'model/loss': step / 2}], logged=step in (6, 11))
    if step == 6:
      report.scalars(step, 1 / 12, [{'model/loss': 1.75}])
  report.close()
  assert capsys.readouterr().out.splitlines() == [
    'step  5/40  0.0833 steps/s  ETA 7:00     model/loss 2.5',
    'step  6/40  0.0833 steps/s  ETA 6:48     model/loss 1.75',
    'step 12/40  0.0833 steps/s  ETA 5:36     model/loss 6',
  ]


def lines_of(tmp_path, capsys, name, last, speed, *lanes, evaluators=('test', 'samples')):
  shown = Shown([f'seed_{i}' for i in range(len(lanes))], evaluators, '', {}, '', ())
  report = Report(str(tmp_path / name), 0, last, shown, visible=True)
  report.scalars(last // 3, speed, lanes)
  report.close()
  return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize('number', [1, 3])
def test_long_lines_go_on_in_aligned_columns(tmp_path, capsys, number):
  names = [f'test/{"figure" * (i % 3 + 1)}_{i}' for i in range(9)]
  figures = {name: -1.2345e-5 * 10**i for i, name in enumerate(names)}
  lane = {**figures, 'generator/loss': 0.5, 'discriminator/loss': -1.2345e-10, 'generator/mse': 1.0}
  first, *further = lines_of(tmp_path, capsys, 'a', 10_000_000, 1234.5, *[lane] * number)
  assert max(map(len, (first, *further))) <= 100
  whole = ' '.join((first, *further))
  assert [name for name in lane if f' {name} ' not in whole] == ['generator/mse']
  columns = [{line.index(name) for line in further for name in lane if f' {name} ' in line}]
  beside = max(line.count('/') for line in further)
  assert beside > 1 and len(columns[0]) == beside, 'each column begins at one place'
  ends = {len(line) for line in further[:-1]}
  assert len(ends) == 1, 'figures end at one place'


def test_the_columns_stay_from_line_to_line(tmp_path, capsys):
  first = lines_of(tmp_path, capsys, 'a', 30_000, 9.87654, {'a/loss': 1.0, 'b/loss': 2.0})
  second = lines_of(tmp_path, capsys, 'b', 60_000, 1e4, {'a/loss': -1.234e-05, 'b/loss': 2.5})
  assert first[0].index('b/loss') == second[0].index('b/loss')
  assert first[0].index('steps/s') == second[0].index('steps/s')


def test_no_name_and_no_figure_is_cut(tmp_path, capsys):
  name = f'samples/{"x" * 120}'
  lines = lines_of(tmp_path, capsys, 'a', 30, None, {name: 1.5, 'test/y': 2.0, 'm/loss': 3.0})
  assert lines[0] == f'step 10/30{" " * 30}m/loss 3'
  assert [line.split() for line in lines[1:]] == [[name, '1.5'], ['test/y', '2']]


def test_an_invisible_report_writes_nothing(tmp_path):
  report = Report(str(tmp_path), 0, 40, SHOWN, visible=False)
  report.scalars(10, 2.5, [{'x': 1.0}])
  report.samples(10, 'image', [np.zeros((4, 2, 2, 1))])
  report.say('hello')
  report.close()
  assert not list(tmp_path.iterdir())


def test_sample_grids_are_png_files(tmp_path):
  report = Report(str(tmp_path), 0, 40, SHOWN, visible=True)
  report.samples(7, 'image', [np.zeros((4, 2, 2, 3), np.float32)])
  report.close()
  with Image.open(tmp_path / 'samples' / 'step_00000007.png') as picture:
    assert picture.mode == 'RGB' and picture.size[0] >= 256


def test_grid_places_images_row_by_row():
  images = np.stack([np.full((2, 3, 1), value) for value in (0.0, 0.5, 1.0)])
  sheet = pictures.grid(images, columns=2, margin=1)
  assert sheet.shape == (2 * 3 + 1, 2 * 4 + 1, 1)
  assert sheet[1, 1, 0] == 0 and sheet[2, 3, 0] == 0
  assert sheet[1, 5, 0] == 128
  assert sheet[4, 1, 0] == 255
  assert (sheet[0] == 255).all() and (sheet[:, 0] == 255).all()


@pytest.mark.parametrize(('size', 'channels'), [(28, 1), (5, 3), (96, 3)])
def test_words_stand_beside_the_images_they_are_about(size, channels):
  images = np.random.default_rng(0).random((3, 4, size, size + 1, channels), np.float32) / 2
  columns, rows = (
    ('one', 'some longer words above', '', 'four'),
    ('a class: 0.98\ntrue: b', '', 'c'),
  )
  sheet = pictures.captioned(images, columns, rows)
  plain = pictures.grid(images.reshape(-1, *images.shape[2:]), 4)
  bare = pictures.captioned(images, (), ())
  factor = bare.shape[0] // plain.shape[0]
  np.testing.assert_array_equal(bare, plain.repeat(factor, axis=0).repeat(factor, axis=1))
  # The images are at the lower right, as they are without words, but for their enlargement.
  factor = next(f for f in range(1, 60) if fits(sheet, plain.repeat(f, axis=0).repeat(f, axis=1)))
  top, left = (sheet.shape[i] - plain.shape[i] * factor for i in (0, 1))
  ink = (sheet < 128).all(axis=2)
  step_x, step_y = (size + 3) * factor, (size + 2) * factor
  # From the middle between two images to the middle between the next two.
  starts = [left + factor + i * step_x for i in range(5)]
  above = [ink[:top, a:b].any() for a, b in itertools.pairwise(starts)]
  beside = [ink[top + i * step_y : top + (i + 1) * step_y, :left].any() for i in range(3)]
  assert (above, beside) == ([True, True, False, True], [True, False, True])
  # Nothing is cut off, and words keep apart.
  assert not ink[:2].any() and not ink[:, :2].any() and not ink[:top, starts[:-1]].any()


def fits(sheet, enlarged):
  height, width = enlarged.shape[:2]
  return sheet.shape >= enlarged.shape and np.array_equal(sheet[-height:, -width:], enlarged)


def test_rounding_and_clipping_of_pixels():
  np.testing.assert_array_equal(
    pictures.to_uint8(np.array([-0.5, 0.0, 1 / 255, 0.999, 1.0, 2.0])), [0, 0, 1, 255, 255, 255]
  )


def test_lanes_are_shown_by_mean_deviation_and_each_of_them(tmp_path, capsys):
  shown = Shown(('seed_3', 'seed_4'), ('eval',), '', {}, '', ())
  report = Report(str(tmp_path), 0, 40, shown, visible=True)
  report.scalars(10, None, [{'model/loss': 1.0, 'eval/x': 5.0}, {'model/loss': 2.0}])
  report.samples(10, 'image', [np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1))])
  report.close()
  (line,) = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert line['model/loss'] == 1.5 and abs(line['model/loss/sd'] - 0.5**0.5) < 1e-12
  assert (line['model/loss/seed_3'], line['model/loss/seed_4']) == (1.0, 2.0)
  assert line['eval/x'] == line['eval/x/seed_3'] == 5.0 and 'eval/x/sd' not in line
  assert 'model/loss 1.5 ± 0.71' in capsys.readouterr().out
  names = sorted(path.name for path in (tmp_path / 'samples').iterdir())
  assert names == ['step_00000010_seed_3.png', 'step_00000010_seed_4.png']


def test_progress_begins_at_once_and_goes_on_after_a_while(capsys, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  with Counting('evaluate test', 4000) as progress:
    assert capsys.readouterr().out == 'evaluate test 0/4,000\n'
    for done, seconds in ((1000, 6), (2000, 12), (3000, 18), (4000, 24)):
      now[0] = seconds
      progress(done, {'loss': 1 / 8})
  assert capsys.readouterr().out.splitlines() == [
    'evaluate test 2,000/4,000  0:12 left  loss 0.125',
    'evaluate test 4,000/4,000  0:00 left  loss 0.125',
  ]


def test_progress_is_a_bar_on_a_terminal_from_the_beginning(capsys, monkeypatch):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  with Counting('evaluate test', 4000):
    assert 'evaluate test' in capsys.readouterr().out


def test_tensorboard_is_given_the_options(tmp_path):
  report = Report(str(tmp_path), 0, 40, SHOWN, visible=True)
  report.scalars(10, 2.5, [{'eval/x': 1.25}])
  report.close()
  assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [], 'no run of its own'
  values = {}
  for summary in summaries_in(tmp_path):
    for value in summary.value:
      values[value.tag] = value
  table = values['config/text_summary'].tensor.string_val[0].decode()
  assert '| train.steps | 40 |' in table and '| data.classes | (3, 5) |' in table
  start = values['_hparams_/session_start_info'].metadata.plugin_data
  content = plugin_hparams_pb2.HParamsPluginData.FromString(start.content).session_start_info
  given = {name: value.WhichOneof('kind') for name, value in content.hparams.items()}
  assert given == {
    'train.steps': 'number_value', 'optimizer.name': 'string_value', 'ema.on': 'bool_value',
    'data.classes': 'string_value',
  }  # fmt: skip
  experiment = values['_hparams_/experiment'].metadata.plugin_data
  known = plugin_hparams_pb2.HParamsPluginData.FromString(experiment.content).experiment
  assert [metric.name.tag for metric in known.metric_infos] == ['eval/x']
  assert values['eval/x'].simple_value == 1.25


def summaries_in(folder):
  """Every summary of a run's TensorBoard file, whose records have a length and two checksums."""
  (path,) = folder.glob('events.out.tfevents.*')
  content, at = path.read_bytes(), 0
  while at < len(content):
    (length,) = struct.unpack_from('<Q', content, at)
    yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length]).summary
    at += 12 + length + 4


def test_a_log_with_noise_in_it_is_read_and_goes_on(tmp_path):
  lines = [json.dumps({'step': step}).encode() for step in (1, 2, 3)]
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join([lines[0], b'\xff\x00', *lines[1:]]))
  assert last_step(tmp_path) == 3
  Report(str(tmp_path), 2, 9, Shown(('',), (), '', {}, '', ()), visible=True).close()
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize('kind', ['folder', 'broken link', 'link to itself'])
def test_a_log_that_is_no_file_is_one_sentence(tmp_path, kind):
  path = tmp_path / 'metrics.jsonl'
  if kind == 'folder':
    path.mkdir()
  else:
    path.symlink_to('/nowhere/at/all' if kind == 'broken link' else path.name)
  with pytest.raises(UserError, match=r'metrics\.jsonl cannot be read and written \(.*; move it'):
    Report(str(tmp_path), 0, 9, Shown(('',), (), '', {}, '', ()), visible=True)
