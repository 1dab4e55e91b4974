"""`cnn.py` on real digits, on digits that a GAN drew, or on both; tested on real ones.

  python train.py --config=configs/synthetic.py:both       # mnist5k, and after it `synthetic`
  python train.py --config=configs/synthetic.py:synthetic
  python train.py --config=configs/synthetic.py:real

`synthetic` comes from python sample.py --workdir=runs/cgan --num=4000 --out=synthetic; see
docs/synthetic_data.md. The three differ in their training images alone. 400 steps from each reach
0.979, 0.957 and 0.974 on mnist5k's test digits: a loss (docs/results.md). A minute each.
"""

from ml_collections import ConfigDict

from configs import cnn
from errors import UserError, nearest

REAL = 'mnist5k'
TRAINED_ON = {'real': REAL, 'synthetic': 'synthetic', 'both': f'{REAL}+synthetic'}


def get_config(images: str = 'both') -> ConfigDict:
  if images not in TRAINED_ON:
    raise UserError(
      f'configs/synthetic.py:{images} trains on nothing{nearest(images, TRAINED_ON)}; '
      f'there are: {", ".join(TRAINED_ON)}'
    )
  config = cnn.get_config(TRAINED_ON[images])
  config.data.test_name = REAL
  return config
