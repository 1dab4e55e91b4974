"""Small GPT-style language model, trained on the sources of Python's standard library.

  python train.py --config=configs/gpt.py                      # the standard library's source files
  python train.py --config=configs/gpt.py:tiny_shakespeare     # any prepared TFDS text data set
  python sample.py --workdir=runs/gpt --prompt='def ' --temperature=0.8

Pre-norm blocks with rotary positions and SwiGLU over 2,048 byte-level BPE tokens, which are learned
from the training split and stored in the run. 4 steps/s on 2 CPU cores, 1.81 bits per byte after
the first 750 steps (docs/results.md). The other configs of text start from this one.
"""

from ml_collections import ConfigDict

from configs.defaults import SPLIT_OVER_FSDP, defaults, optimizer, speed

# `tensor` splits attention by its heads and the MLP by its units; `fsdp` splits the other axis of
# every kernel, and of the rest what is large. Scanned blocks have a leading axis of layers.
_SPLIT_BY_COLUMNS = '(query_key_value|up|gate)/kernel$'
_SPLIT_BY_ROWS = '(output|down)/kernel$'
SHARDING = (
  (f'blocks/.*{_SPLIT_BY_COLUMNS}', (None, 'fsdp', 'tensor')),
  (f'blocks/.*{_SPLIT_BY_ROWS}', (None, 'tensor', 'fsdp')),
  (f'block_.*{_SPLIT_BY_COLUMNS}', ('fsdp', 'tensor')),
  (f'block_.*{_SPLIT_BY_ROWS}', ('tensor', 'fsdp')),
  *SPLIT_OVER_FSDP,
)


def get_config(data: str = 'python_stdlib') -> ConfigDict:
  config = defaults()
  config.objective = dict(name='causal_lm', separate_documents=False, loss_chunks=0)
  config.modules.model = dict(
    name='transformer',
    width=192,
    layers=4,
    heads=6,
    key_value_heads=0,
    hidden=512,
    context=128,
    causal=True,
    norm='rms',
    norm_place='pre',
    norm_epsilon=1e-5,
    positions='rotary',
    mlp='swiglu',
    biases=False,
    tied=True,
    types=0,
    embedding_norm=False,
    head='linear',
    dropout=0.0,
    scan=False,
    unroll=1,
    remat=False,
    remat_policy='nothing_saveable',
    residual='float32',
  )
  config.optimizer.model = language_optimizer(1e-3)
  config.data.name = data
  config.data.test_split = 'validation'
  config.data.batch_size = 16
  config.data.text = dict(
    tokenizer='bpe',
    vocabulary=2048,
    specials=('end',),
    rows='windows',
    length=128,
    next_token=True,
    stride=0,
    kinds=False,
  )
  config.sharding = SHARDING
  config.train.steps = 2000
  config.train.sample_every = 500
  config.train.samples = 4
  config.evaluators.test.update(every=250, batch_size=64)
  config.checkpoint.every = 500
  config.checkpoint.best = 'test/loss'
  config.evaluators.speed = speed(calls=50)
  config.evaluators.speed.batch_size = 64
  return config


def language_optimizer(learning_rate: float) -> ConfigDict:
  """Returns AdamW with nanoGPT's settings: weight decay of matrices, a cosine to a tenth."""
  section = optimizer('adamw', learning_rate, b1=0.9, b2=0.99, weight_decay=0.1, clip=1.0)
  section.decay_only = 'kernel$|embedding$'
  section.schedule = dict(name='cosine', warmup=100, end=0.1, boundaries=(), factors=())
  return section
