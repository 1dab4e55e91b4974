"""A value is checked against its declaration, and every refusal names the way out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from errors import UserError, choose
from options import Option, complete, declared_options, option

DECLARED = {
  'temperature': Option(float, 1.0, 'Softmax temperature; 0 is greedy decoding.', low=0),
  'top_k': Option(int, 0, 'Most likely tokens kept; 0 keeps all.', low=0),
  'top_p': Option(float, 1.0, 'Probability mass kept.', above=0, high=1),
  'label': Option(int, None, 'Class of every sample; each in turn without it.', low=0, below=10),
  'mode': Option(str, 'min', 'Which is better.', choices=('min', 'max')),
}


def test_defaults_fill_what_is_not_given():
  values = complete(DECLARED, {'temperature': 2}, 'the sampler', '--')
  assert values == {'temperature': 2.0, 'top_k': 0, 'top_p': 1.0, 'label': None, 'mode': 'min'}
  assert isinstance(values['temperature'], float)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (
      {'temprature': 1},
      r'--temprature is no option of the sampler \(did you mean "temperature"\?\)',
    ),
    ({'temperature': -0.1}, '--temperature=-0.1 must be at least 0'),
    ({'temperature': math.nan}, '--temperature=nan must be a finite number'),
    ({'temperature': math.inf}, '--temperature=inf must be a finite number'),
    ({'temperature': 'warm'}, '--temperature=warm must be a number'),
    ({'temperature': True}, '--temperature=True must be a number'),
    ({'top_k': 1.5}, '--top_k=1.5 must be a whole number'),
    ({'top_k': True}, '--top_k=True must be a whole number'),
    ({'top_p': 0}, r'--top_p=0 must be above 0 and at most 1'),
    ({'label': 10}, '--label=10 must be at least 0 and below 10'),
    ({'mode': 'mean'}, '--mode=mean must be one of min, max'),
  ],
)
def test_a_wrong_value_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    complete(DECLARED, given, 'the sampler', '--')


def test_choose_names_the_nearest_and_all():
  assert choose({'adam': 1, 'sgd': 2}, 'sgd', 'config.optimizer.model.name') == 2
  with pytest.raises(UserError, match=r'name=adm is unknown \(did you mean "adam"\?\); there are'):
    choose({'adam': 1, 'sgd': 2}, 'adm', 'config.optimizer.model.name')


@dataclasses.dataclass(frozen=True)
class Section:
  size: int = option('A size.', low=1)
  shares: Sequence[float] = option('Shares.', low=0, high=1)
  weights: Mapping[str, float] = option('Weights by name.', low=0)
  rest: Any = option('Anything.', default=None)
  internal: int = 3


def test_fields_declare_options_with_the_type_of_their_annotation():
  declared = declared_options(Section)
  assert [*declared] == ['size', 'shares', 'weights']
  assert (declared['shares'].type, declared['shares'].each) == (float, 'list')
  assert (declared['weights'].type, declared['weights'].each) == (float, 'mapping')
  assert declared_options(Section.__init__) == {}


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('size', 0, 'config.x.size=0 must be at least 1'),
    ('shares', (0.5, 2), 'config.x.shares=0.5,2: 2 must be at least 0 and at most 1'),
    ('shares', math.nan, 'config.x.shares=nan: nan must be a finite number'),
    ('shares', ('a',), 'config.x.shares=a: a must be a number'),
    ('weights', {'r1': -1.0}, 'config.x.weights.r1=-1.0 must be at least 0'),
    ('weights', 3, 'config.x.weights=3 must be a mapping from names to values'),
  ],
)
def test_lists_and_mappings_are_checked_value_by_value(name, value, message):
  with pytest.raises(UserError) as refused:
    declared_options(Section)[name].check(value, f'config.x.{name}')
  assert str(refused.value) == message


def test_one_value_stands_for_a_list_of_it():
  assert declared_options(Section)['shares'].check(1, 'x') == (1.0,)
