"""`cnn.py` trained on real digits, on digits sampled from a GAN, or on both; tested on real ones.

  python train.py --config=configs/synthetic.py:both       # mnist5k followed by `synthetic`
  python train.py --config=configs/synthetic.py:synthetic
  python train.py --config=configs/synthetic.py:real

The data set `synthetic` is written by python sample.py --workdir=runs/cgan --num=4000
--out=synthetic; see docs/synthetic_data.md. The three configs differ only in their training images.
400 steps reach an accuracy of 0.979 (real), 0.957 (synthetic) and 0.974 (both) on mnist5k's test
digits: the sampled digits do not help (docs/results.md). A minute each.
"""

from ml_collections import ConfigDict

from configs import cnn
from errors import UserError, nearest

REAL = 'mnist5k'
TRAINED_ON = {'real': REAL, 'synthetic': 'synthetic', 'both': f'{REAL}+synthetic'}


def get_config(images: str = 'both') -> ConfigDict:
  if images not in TRAINED_ON:
    raise UserError(
      f'configs/synthetic.py:{images} is unknown{nearest(images, TRAINED_ON)}; '
      f'there are: {", ".join(TRAINED_ON)}'
    )
  config = cnn.get_config(TRAINED_ON[images])
  config.data.test_name = REAL
  return config
