"""GPT-2 from scratch, in its four sizes, with nanoGPT's settings for OpenWebText.

  python train.py --config=configs/gpt2.py:124m --config.data.name=DATA
  python train.py --config=configs/gpt2.py:350m --config.data.name=DATA     # 774m, 1558m

DATA is any prepared TFDS text data set; the default, the standard library's source files, shows
that it runs and is far too small to fill it. A step sees 480 rows of 1,024 tokens, cut into 40
microbatches for one accelerator; on N times as many devices give
--config.train.accumulate=40/N, a whole number. nanoGPT reached a validation loss of 2.85 on
OpenWebText with 124m in 4 days on 8 A100 (its README); not trained here. A tokenizer that exists is
taken with --config.data.text.tokenizer=FOLDER --config.data.text.vocabulary=0.
"""

from ml_collections import ConfigDict

from configs import gpt
from errors import UserError, nearest

# Radford et al. 2019, table 2, by what the models really have. The large ones compute their blocks
# again for the gradient instead of keeping what is in them.
SIZES = {
  '124m': dict(layers=12, heads=12, width=768, remat=False),
  '350m': dict(layers=24, heads=16, width=1024, remat=False),
  '774m': dict(layers=36, heads=20, width=1280, remat=True),
  '1558m': dict(layers=48, heads=25, width=1600, remat=True),
}


def get_config(size: str = '124m') -> ConfigDict:
  if size not in SIZES:
    raise UserError(
      f'configs/gpt2.py:{size} is no size{nearest(size, SIZES)}; there are: {", ".join(SIZES)}'
    )
  config = gpt.get_config()
  config.modules.model.update(
    SIZES[size], hidden=0, context=1024, norm='layer', positions='learned', mlp='gelu', scan=True
  )
  config.optimizer.model = gpt.language_optimizer(6e-4)
  config.optimizer.model.b2 = 0.95
  config.optimizer.model.schedule.warmup = 2000
  config.data.batch_size = 480
  # With the special entry 50,304, a multiple of 64: nanoGPT fills GPT-2's 50,257 up to it.
  config.data.text.update(vocabulary=50_303, length=1024)
  config.train.steps = 600_000
  config.train.accumulate = 40
  config.train.precision = 'bfloat16'
  config.train.log_every = 10
  config.evaluators.test.every = 1000
  config.checkpoint.every = 1000
  config.evaluators.test.batch_size = 12
  return config
