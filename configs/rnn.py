"""Recurrent language model: one LSTM layer of 256 units over bytes.

  python train.py --config=configs/rnn.py                        # Python's standard library
  python train.py --config=configs/rnn.py --config.modules.model.cell=tanh   # or sigmoid, gru
  python train.py --config=configs/rnn.py:tiny_shakespeare

The recurrent state is 0 at the start of every row of 64 tokens.
"""

from ml_collections import ConfigDict

from configs import gpt
from configs.defaults import SPLIT_OVER_FSDP, optimizer


def get_config(data: str = 'python_stdlib') -> ConfigDict:
  config = gpt.get_config(data)
  config.modules.model = dict(
    name='rnn.RNN', cell='lstm', width=256, embedding=0, layers=1, dropout=0.0, tied=False
  )
  config.sharding = SPLIT_OVER_FSDP
  config.optimizer.model = optimizer('adam', 2e-3, clip=1.0)
  config.data.batch_size = 32
  config.data.text.update(tokenizer='byte', vocabulary=0, length=64)
  config.train.steps = 3000
  return config
