"""The sections that every config has, with the values that most experiments keep.

A config starts from `defaults()`; docs/options.md explains the options.
"""

from typing import Any

from ml_collections import ConfigDict

# Over the mesh axis `fsdp` every parameter is split along its largest axis that divides.
SPLIT_OVER_FSDP = (('.*', 'fsdp'),)


def defaults() -> ConfigDict:
  """Returns a config with every section; the objective, modules and optimizers are still empty."""
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
    decoded_mb=16384,
    order_block=0,
    corrupt='refuse',
    augment=dict(crop=0, flip=False, rotate=0.0, scale=0.0, cutout=0, mixup=0.0),
    image=dict(size=(), channels=0, resize='center'),
    table=dict(target='', ignore=(), categories=(), missing='refuse'),
    jsonl=dict(text='text', label=''),
  )
  config.train = dict(
    steps=10_000,
    epochs=0.0,
    seed=0,
    log_every=100,
    sample_every=1000,
    samples=64,
    dispatch=100,
    precision='float32',
    accumulate=1,
    gradient=dict(name='gradients.mean'),
    patience=0,
    minimum_gain=0.0,
    latency_hiding=False,
    determinism='default',
  )
  config.seeds = 1
  config.checkpoint = dict(every=500, keep=2, best='', best_mode='min')
  config.evaluators = dict(test=examples())
  config.report = dict(trackers=('tensorboard',))
  config.mesh = dict(lane=1, data=-1, fsdp=1, tensor=1)
  config.sharding = SPLIT_OVER_FSDP
  config.init_from = ConfigDict()
  config.profile = False
  return config


def optimizer(name: str, learning_rate: float, **options: Any) -> ConfigDict:
  """Returns the section of an optimizer, with everything off that `options` do not set."""
  section = dict(
    name=name,
    learning_rate=learning_rate,
    schedule=dict(name='constant', warmup=0, end=0.0, boundaries=(), factors=()),
    clip=0.0,
    weight_decay=0.0,
    decay_only='',
    l1=0.0,
    clip_weights=0.0,
    state_dtype='float32',
    offload=False,
  )
  return ConfigDict({**section, **options})


def average(module: str, decay: float = 0.0, half_life: float = 0.0) -> ConfigDict:
  """Returns the section of an average (EMA) of a module's parameters.

  Give either `decay`, per step, or `half_life`, in examples.
  """
  return ConfigDict(dict(module=module, decay=decay, half_life=half_life))


def examples(every: int = 1000, **options: Any) -> ConfigDict:
  """Returns the evaluator of the objective's per-example figures on the test split."""
  section = dict(name='examples', split='test', every=every, batch_size=500, metrics={}, average='')
  return ConfigDict({**section, **options})


def samples(
  features: dict[str, Any], metrics: dict[str, Any], every: int = 1000, **options: Any
) -> ConfigDict:
  """Returns an evaluator that compares samples with the test split in a feature space."""
  section = dict(
    name='samples',
    features=features,
    metrics=metrics,
    samples=1000,
    reference='test',
    held_out='',
    every=every,
    batch_size=500,
    average='',
  )
  return ConfigDict({**section, **options})


def measure(measurement: str, every: int = 0, **options: Any) -> ConfigDict:
  """Returns the evaluator of one of the objective's costly measurements.

  By default (`every=0`) only `evaluate.py` runs it.
  """
  section = dict(
    name='measure', measurement=measurement, split='test', every=every, batch_size=500, average=''
  )
  return ConfigDict({**section, **options})


def speed(calls: int) -> ConfigDict:
  """Returns the evaluator of latency and throughput, which only `evaluate.py` runs."""
  return ConfigDict(
    dict(name='speed', split='test', every=0, batch_size=500, calls=calls, average='')
  )


# The classifiers of this project that know the images of a data set (metrics/features/weights/).
CLASSIFIERS = {
  'mnist5k': 'mnist5k-cnn',
  'mnist': 'mnist5k-cnn',
  'fashion_mnist': 'fmnist-cnn',
}


def features(data: str) -> dict[str, Any]:
  """Returns the section of the features by which images of `data` are judged.

  They are those of a classifier of such images where this project has one (`CLASSIFIERS`), else
  means over blocks of pixels.
  """
  if data in CLASSIFIERS:
    return dict(name='classifier', weights=CLASSIFIERS[data])
  return dict(name='pixels.BlockMeans', side=8)


def quality(data: str) -> ConfigDict:
  """Returns the evaluator of how good images are: 10,000 samples against the training split.

  Only `evaluate.py` runs it.
  """
  metrics = dict(
    fd=dict(name='frechet'),
    kid=dict(name='kid', most=5000),
    mind=dict(name='mind', projections=500, seed=0, most=5000),
    prdc=dict(name='prdc', k=3, most=2000),
    duplicates=dict(name='duplicates', most=2000, quantile=0.01),
    vendi=dict(name='vendi'),
  )
  if data in CLASSIFIERS:
    metrics |= dict(
      inception_score=dict(name='inception_score'), classes_hit=dict(name='classes_hit')
    )
  return samples(features(data), metrics, every=0, samples=10_000, reference='train')


def copies(data: str) -> ConfigDict:
  """Returns the evaluator of how many of 1,000 images are copies of training examples.

  Only `evaluate.py` runs it.
  """
  memorisation = dict(name='memorisation', most=60_000, quantile=0.01)
  return samples(
    features(data),
    dict(memorisation=memorisation),
    every=0,
    reference='train',
    held_out='test',
  )


def accuracy_score() -> ConfigDict:
  """Returns the evaluator of the classification accuracy score of 4,000 samples.

  Only `evaluate.py` runs it.
  """
  classifier = dict(name='accuracy_score', width=128, max_iter=100, seed=0)
  return samples(dict(name='pixels.Pixels'), dict(cas=classifier), every=0, samples=4000)
