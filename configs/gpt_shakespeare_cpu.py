"""nanoGPT's character model of Shakespeare, settings for a CPU: 4 layers, width 128, 2,000 steps.

  python train.py --config=configs/gpt_shakespeare_cpu.py

Published: validation loss 1.88 after about 3 minutes on a laptop (nanoGPT's README). Here: 1.902,
over every character, after 2 minutes on 2 cores, and 1.791 with
--config.optimizer.model.learning_rate=3e-3. The same model in PyTorch, trained on this machine,
reaches 1.924 at the published rate (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gpt_shakespeare


def get_config(data: str = 'tiny_shakespeare') -> ConfigDict:
  config = gpt_shakespeare.get_config(data)
  config.modules.model.update(width=128, layers=4, heads=4, context=64, dropout=0.0)
  config.data.batch_size = 12
  config.data.text.length = 64
  config.train.steps = 2000
  config.train.precision = 'float32'
  return config
