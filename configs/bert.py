"""Small BERT-style masked language model, trained on the sources of Python's standard library.

  python train.py --config=configs/bert.py

It predicts 15 % of the tokens from the context on both sides (Devlin et al. 2019). Fine-tune it
with configs/bert_classify.py and configs/bert_tag.py. 4 steps/s on 2 CPU cores; loss 5.65 nats
after the first 1,000 steps (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gpt


def get_config(data: str = 'python_stdlib') -> ConfigDict:
  config = gpt.get_config(data)
  config.objective = dict(
    name='masked_lm', mask_rate=0.15, mask_token_fraction=0.8, random_token_fraction=0.1
  )
  config.modules.model.update(
    causal=False,
    hidden=0,
    norm='layer',
    norm_place='post',
    positions='learned',
    mlp='gelu',
    biases=True,
    embedding_norm=True,
    head='transform',
    dropout=0.0,
  )
  config.data.batch_size = 16
  config.data.text.update(
    specials=('pad', 'unknown', 'class', 'separator', 'mask', 'end'), next_token=False
  )
  config.train.steps = 2000
  return config
