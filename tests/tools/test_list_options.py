"""docs/options.md is what the declarations say now."""

import re

import pytest

from engine import declarations
from engine.build import to_plain
from options import Option
from tests.golden.tiny import CONFIGS, config_for
from tools import list_options

TABLE_ROW = re.compile(r'\| `([^`]+)` \| ([^|]+) \| (.*) \| (.*) \| (.+) \|')


def rows():
  return [line for line in list_options.PAGE.read_text().splitlines() if line.startswith('| `')]


def test_the_page_is_current():
  assert list_options.PAGE.read_text() == list_options.page(), (
    f'the declarations have changed: run {list_options.COMMAND}'
  )


def test_every_row_has_a_type_and_a_meaning():
  assert len(rows()) > 150
  for row in rows():
    found = TABLE_ROW.fullmatch(row.replace(r'\|', '/'))
    assert found and found[5].rstrip('.`').strip(), row


@pytest.mark.parametrize(
  ('option', 'cells'),
  [
    (
      Option(float, 0.5, 'A share.', low=0, below=1),
      'a number | at least 0 and below 1 | `0.5` | A share.',
    ),
    (Option(str, '', "This|that; '' for none."), r"a word |  | `''` | This\|that; '' for none."),
    (
      Option(int, (1, 2), 'Sizes.', low=1, each='list'),
      'a list of whole numbers | at least 1 | `1,2` | Sizes.',
    ),
    (Option(int, None, 'A class.'), 'a whole number |  |  | A class.'),
  ],
)
def test_a_row(option, cells):
  assert list_options._cells(option) == cells


def places(config):
  """Every place of a section that declares options, with its values."""

  def below(place, section):
    if not isinstance(section, dict):
      return
    if not declarations.is_group(place):
      yield place, section
    for key, value in section.items():
      inner = f'{place}.{key}'
      if declarations.is_section(inner) and (value or inner != 'data.text'):
        yield from below(inner, value)

  for name in declarations.SECTIONS:
    yield from below(name, to_plain(config[name]))


@pytest.mark.parametrize('name', CONFIGS)
def test_every_declared_option_of_a_config_is_on_the_page(name):
  listed = {TABLE_ROW.fullmatch(row.replace(r'\|', '/'))[1] for row in rows()}
  found = 0
  for place, section in places(config_for(name)):
    options = declarations.options_at(place, section).options
    for key in section:
      if key in options and options[key].doc and key != 'name':
        assert key in listed, f'{place}.{key}'
        found += 1
  assert found > 40
