"""A value is checked against its declaration, and every refusal names the way out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from errors import UserError, choose
from options import REQUIRED, Option, complete, declared_options, option

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
  part: Mapping[str, Any] = option('A section.')
  parts: Mapping[str, Mapping[str, Any]] = option('Sections by name.')
  limit: float | None = option('A limit; None is none.', above=0)
  fold: int = option('A fold; -1 is all.', low=0, also=(-1,))
  rest: Any = option('Anything.', default=None)
  internal: int = 3


def test_fields_declare_options_with_the_type_of_their_annotation():
  declared = declared_options(Section)
  assert [*declared] == [
    'size', 'shares', 'weights', 'part', 'parts', 'limit', 'fold', 'rest',
  ]  # fmt: skip
  assert (declared['rest'].type, declared['rest'].default) == (object, None)
  assert (declared['part'].type, declared['part'].each) == (Mapping, '')
  assert (declared['parts'].type, declared['parts'].each) == (Mapping, 'mapping')
  assert (declared['limit'].type, declared['size'].default) == (float, REQUIRED)
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
    ('weights', 3, 'config.x.weights=3 must be a mapping from names to numbers'),
    ('weights', None, 'config.x.weights=None must be a mapping from names to numbers'),
    ('size', None, 'config.x.size=None must be a whole number'),
    ('shares', None, 'config.x.shares=None must be a list of numbers'),
    ('part', 'adam', 'config.x.part=adam must be a section of options'),
    ('parts', {'fd': 3}, 'config.x.parts.fd=3 must be a section of options'),
    ('limit', 0, 'config.x.limit=0 must be above 0'),
    ('limit', 10**400, f'config.x.limit={10**400} must be a finite number'),
    ('fold', -2, 'config.x.fold=-2 must be at least 0, or -1'),
    ('rest', math.nan, 'config.x.rest=nan must be a finite number'),
  ],
)
def test_lists_and_mappings_are_checked_value_by_value(name, value, message):
  with pytest.raises(UserError) as refused:
    declared_options(Section)[name].check(value, f'config.x.{name}')
  assert str(refused.value) == message


def test_values_beside_the_range():
  assert declared_options(Section)['fold'].check(-1, 'x') == -1
  assert declared_options(Section)['fold'].allowed == 'at least 0, or -1'


def test_what_must_be_given_is_named_with_its_meaning():
  declared = declared_options(Section)
  with pytest.raises(UserError, match=r'^--size is missing; the thing needs it: A size\.$'):
    complete({'size': declared['size']}, {}, 'the thing', '--')


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('size', 'a whole number'),
    ('shares', 'a list of numbers'),
    ('weights', 'a mapping from names to numbers'),
    ('part', 'a section of options'),
  ],
)
def test_kinds_in_words(name, kind):
  assert declared_options(Section)[name].kind == kind


def test_one_value_stands_for_a_list_of_it():
  assert declared_options(Section)['shares'].check(1, 'x') == (1.0,)
