"""The flag --mesh: every part of it is read, and nothing else is taken."""

import pytest

from commands.run_flags import parse_mesh
from errors import UserError


def test_sizes_of_axes():
  assert parse_mesh('data:1,fsdp:8') == {'data': 1, 'fsdp': 8}
  assert parse_mesh('data:-1') == {'data': -1}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', '--mesh=: write AXIS:SIZE'),
    ('data', '--mesh=data: write AXIS:SIZE'),
    ('data:1,', '--mesh=data:1,: write AXIS:SIZE'),
    ('data:²', '--mesh=data:²: write AXIS:SIZE'),
    ('data:0', '--mesh=data:0: write AXIS:SIZE'),
    ('data:1,fsdp:1,data:2', 'gives the axis data twice'),
    ('date:1', r'--mesh=date is unknown \(did you mean "data"'),
  ],
)
def test_another_text_is_refused(text, message):
  with pytest.raises(UserError, match=message):
    parse_mesh(text)
