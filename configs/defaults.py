"""The sections every config has, with the values most experiments keep.

`defaults()` is where a config starts; the options are explained where they are read:
`engine/session.py` (data, train), `engine/checkpoint.py`, `engine/evaluation.py`,
`engine/optimizers.py`, `engine/sharding.py`, `engine/transfer.py` (init_from, init_rules).
"""

from typing import Any

from ml_collections import ConfigDict


def defaults() -> ConfigDict:
  config = ConfigDict()
  config.objective = ConfigDict()
  config.modules = ConfigDict()
  config.optimizer = ConfigDict()
  config.ema = ConfigDict()
  config.data = dict(
    name='mnist5k',
    split='train',
    test_name='',
    test_split='test',
    classes=(),
    columns=(),
    folds=0,
    fold=0,
    batch_size=128,
    data_dir='',
    resident_mb=2048,
    workers=0,
    text={},
    augment=dict(crop=0, flip=False, rotate=0.0, scale=0.0, cutout=0, mixup=0.0),
  )
  config.train = dict(
    steps=10_000,
    epochs=0.0,
    seed=0,
    log_every=100,
    sample_every=1000,
    evaluate_every=1000,
    samples=64,
    dispatch=100,
    precision='float32',
    accumulate=1,
    patience=0,
    minimum_gain=0.0,
  )
  config.checkpoint = dict(every=500, keep=2, best='', best_mode='min')
  config.evaluate = dict(batch_size=500, samples=1000, metrics={}, timed_calls=0)
  config.mesh = dict(data=-1, fsdp=1, tensor=1)
  config.sharding = ()
  config.init_from = ''
  config.init_rules = '.*=load'
  config.profile = False
  return config


def optimizer(name: str, learning_rate: float, **options: Any) -> ConfigDict:
  """An optimizer's section: everything off but what is given."""
  section = dict(
    name=name,
    learning_rate=learning_rate,
    schedule=dict(name='constant', warmup=0, end=0.0, boundaries=(), factors=()),
    clip=0.0,
    weight_decay=0.0,
    decay_only='',
    l1=0.0,
    clip_weights=0.0,
  )
  return ConfigDict({**section, **options})
