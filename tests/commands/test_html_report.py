"""The report of runs: one file that loads nothing, with everything of a user's escaped."""

import base64
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from commands import html_report, nearest_neighbours
from commands.compare_results import group_results
from commands.result_files import read_result
from commands.run_records import Record
from errors import UserError
from metrics import charts
from tests.commands.recorded import CONFIG, content, run

ODD = '<script>alert("x")</script>&'
FIGURE = f'samples/fd_{ODD}'
VOID = {'meta', 'img', 'circle', 'path', 'br'}


class Page(HTMLParser):
  """The tags of a page, which must be closed in order, with what they load and its text."""

  def __init__(self, page):
    super().__init__()
    self.open, self.tags, self.loaded, self.text = [], [], [], ''
    self.feed(page)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.loaded += [value for name, value in attributes if name in ('src', 'href', 'style')]
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


@pytest.fixture
def groups(tmp_path, monkeypatch):
  """Two groups; the run of the first has lanes, curves and pictures, that of the second text."""
  monkeypatch.setattr(nearest_neighbours, 'compare_with_train', lambda run, *_: _no_data(run))
  lines = [{'step': 5 * i, 'test/loss': 1 / (i + 1), 'test/loss/sd': 0.1} for i in range(4)]
  one = tmp_path / 'one'

  def read(name):
    if name != str(one):
      raise UserError(f'{name}: damaged')
    return Record(name, {**CONFIG, 'evaluators': {'test': {}}}, lines, 15, 15, 'complete', 0.0)

  monkeypatch.setattr(html_report, 'read_record', read)
  run(one, content({FIGURE: 1.0}, intervals={FIGURE: [0.5, 1.5]}))
  other = {**CONFIG, 'data': {'name': ODD}}
  run(tmp_path / 'two', content({FIGURE: 3.0, 'test/x': None}, config=other))
  for folder in (one, tmp_path / 'two'):
    (folder / 'samples').mkdir()
  for step, shade in ((5, 0), (10, 200)):
    for lane in range(2):
      picture = Image.fromarray(np.full((4, 4), shade + lane, np.uint8))
      picture.save(one / 'samples' / f'step_{step:08d}_seed_{lane}.png')
  (tmp_path / 'two/samples/step_00000010.txt').write_text(f'once {ODD}')
  return group_results([read_result(str(tmp_path / name)) for name in ('one', 'two')])


def _no_data(run):
  raise UserError(f'{run}: no data {ODD}')


def test_one_file_that_loads_nothing(groups, tmp_path, capsys):
  out = tmp_path / 'deep' / 'x.html'
  html_report.check_out(str(out))
  html_report.write_report(groups, str(out))
  text = out.read_text()
  page = Page(text)
  assert 'script' not in page.tags and 'link' not in page.tags
  assert all(each.startswith('data:image/') for each in page.loaded) and page.loaded
  assert "default-src 'none'" in html.unescape(text)
  # Names of a user's are shown as they are, and are no tags.
  assert FIGURE in page.text and f'gan {ODD}' in page.text and f'once {ODD}' in page.text
  assert f'no data {ODD}' in page.text
  assert '1 ± 0.5' in page.text and 'not finite' in page.text
  assert 'python evaluate.py --workdir=runs/a' in page.text and 'fingerprint f00d' in page.text
  assert str(out) in capsys.readouterr().out
  # The newest samples of both lanes, not the older ones.
  pictures = [base64.b64decode(each.partition('base64,')[2]) for each in page.loaded]
  grids = [picture for picture in pictures if picture.startswith(b'\x89PNG')]
  newest = [tmp_path / f'one/samples/step_00000010_seed_{lane}.png' for lane in range(2)]
  assert grids == [path.read_bytes() for path in newest]


def test_curves_are_those_of_the_log(groups, monkeypatch):
  drawn, curves = {}, charts.curves

  def note(lines, name):
    drawn[name] = lines
    return curves(lines, name)

  monkeypatch.setattr(charts, 'curves', note)
  page = Page(html_report._page(groups))
  ((name, (steps, values, deviations)),) = drawn.pop('test/loss').items()
  assert name == groups[0].results[0].run and drawn == {}
  assert steps == [0, 5, 10, 15] and values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
  assert deviations == [0.1] * 4
  (chart,) = [each for each in page.loaded if each.startswith('data:image/svg+xml')]
  assert b'<svg' in base64.b64decode(chart.partition('base64,')[2])
  # One run alone needs no legend.
  assert 'class="legend"' not in html_report._page(groups)
  assert f'without {groups[1].results[0].run}: damaged' in page.text


def test_intervals_are_drawn_on_one_scale(groups):
  page = html_report._page(groups)
  (drawing,) = re.findall(r'<svg[^>]*>(.*?)</svg>', page)[:1]
  (left, right), (mean, other) = (
    [float(each) for each in re.search(r'd="M(\S+) \S+H(\S+)"', drawing).groups()],
    [float(each) for each in re.findall(r'cx="(\S+)"', drawing)],
  )
  # 0.5 to 3 from edge to edge.
  assert left == 6 and other == 174 and mean == pytest.approx(left + 168 * 0.2)
  assert right == pytest.approx(left + 168 * 0.4)


def test_a_report_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  for out, part in (
    ('x.pdf', '--report=x.pdf must end in .html'),
    (f'{tmp_path}/file/x.html', 'cannot write --report='),
  ):
    with pytest.raises(UserError, match=part):
      html_report.check_out(out)
