"""Convolutional binary classifier: 3×3×32, pool, 3×3×64, pool, 128 → one sigmoid.

  python train.py --config=configs/cnn_binary.py                             # threes and fives
  python train.py --config=configs/cnn_binary.py:fashion_mnist --config.data.classes=0,6

`data.classes` chooses any two classes of any image data set. Accuracy 0.995 on 200 test digits in
10 seconds on 2 CPU cores (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import cnn


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = cnn.get_config(data)
  config.objective.loss = 'binary'
  config.modules.model.kernel = 3
  config.modules.model.widths = (128,)
  config.modules.model.dropout = 0.0
  config.data.classes = (3, 5)
  config.evaluators.test.every = 25
  config.train.log_every = 25
  return config
