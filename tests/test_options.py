"""A value is checked against its declaration, and every refusal names the way out."""

import math

import pytest

from errors import UserError, choose
from options import Option, complete

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
    ({'top_p': 0}, r'--top_p=0.0 must be above 0 and at most 1'),
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
