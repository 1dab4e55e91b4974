"""GPT-2 from scratch, in its four sizes, with nanoGPT's settings for OpenWebText.

  python train.py --config=configs/gpt2.py:124m --config.data.name=DATA
  python train.py --config=configs/gpt2.py:350m --config.data.name=DATA     # 774m, 1558m

DATA is any prepared TFDS text data set; the default, the sources of Python's standard library, is
enough to see it run and far too small to train it. A step takes 480 rows of 1,024 tokens in 40
microbatches on one accelerator; on N accelerators pass --config.train.accumulate=40/N, which must
be a whole number. nanoGPT reached a validation loss of 2.85 on OpenWebText with 124m in 4 days on 8
A100 (its README); it was not trained here. To use an existing tokenizer, pass
--config.data.text.tokenizer=FOLDER --config.data.text.vocabulary=0.
"""

from ml_collections import ConfigDict

from configs import gpt
from errors import UserError, nearest

# Radford et al. 2019, table 2, named by the parameter counts of the released models. The large ones
# recompute the activations of their blocks in the backward pass, to save memory, and are scanned
# over, to compile in the time of one block: a step of the 124m takes a quarter less unscanned on a
# GPU.
SIZES = {
  '124m': dict(layers=12, heads=12, width=768, scan=False, remat=False),
  '350m': dict(layers=24, heads=16, width=1024, scan=False, remat=False),
  '774m': dict(layers=36, heads=20, width=1280, scan=True, remat=True),
  '1558m': dict(layers=48, heads=25, width=1600, scan=True, remat=True),
}


def get_config(size: str = '124m') -> ConfigDict:
  if size not in SIZES:
    raise UserError(
      f'configs/gpt2.py:{size} is no size{nearest(size, SIZES)}; there are: {", ".join(SIZES)}'
    )
  config = gpt.get_config()
  config.modules.model.update(
    SIZES[size], hidden=0, context=1024, norm='layer', positions='learned', mlp='gelu'
  )
  config.modules.model.residual = 'precision'
  config.objective.loss_chunks = 1
  config.optimizer.model = gpt.language_optimizer(6e-4)
  config.optimizer.model.b2 = 0.95
  config.optimizer.model.schedule.warmup = 2000
  config.data.batch_size = 480
  # 50,304 with the special entry, a multiple of 64, as nanoGPT pads GPT-2's 50,257 entries.
  config.data.text.update(vocabulary=50_303, length=1024)
  config.train.steps = 600_000
  config.train.accumulate = 40
  config.train.precision = 'bfloat16'
  config.train.log_every = 10
  config.evaluators.test.every = 1000
  config.checkpoint.every = 1000
  config.evaluators.test.batch_size = 12
  return config
