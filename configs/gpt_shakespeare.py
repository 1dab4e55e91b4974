"""nanoGPT's character model of Shakespeare, settings for a GPU: 6 layers, width 384, 5,000 steps.

  python train.py --config=configs/gpt_shakespeare.py

Published: validation loss 1.4697 after about 3 minutes on an A100 (nanoGPT's README, config
train_shakespeare_char.py), the best of evaluations every 250 steps. Here the validation loss is
exact, over every character of the last tenth of the text.

On 2 CPU cores a step takes 12 s at best; a tenth of the steps, with --config.train.steps=500
--config.train.precision=float32, reaches 1.781 (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gpt


def get_config(data: str = 'tiny_shakespeare') -> ConfigDict:
  config = gpt.get_config(data)
  config.modules.model.update(
    width=384,
    layers=6,
    heads=6,
    hidden=0,
    context=256,
    norm='layer',
    positions='learned',
    mlp='gelu',
    dropout=0.2,
  )
  config.data.test_split = 'validation+test'
  config.data.batch_size = 64
  config.data.text.update(tokenizer='character', vocabulary=0, specials=(), length=256, stride=1)
  config.train.steps = 5000
  config.train.precision = 'bfloat16'
  config.evaluators.test.every = 250
  return config
