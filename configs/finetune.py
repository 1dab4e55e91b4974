"""Fine-tunes the language model of any run on other text.

  python -m tools.import_hf --folder=downloads/gpt2 --workdir=runs/gpt2
  python train.py --config=configs/finetune.py:runs/gpt2
  python train.py --config=configs/finetune.py:runs/gpt2 --config.data.name=DATA

Takes the modules, objective, rows and tokenizer of the run; trains with AdamW at nanoGPT's learning
rate for fine-tuning. DATA is any prepared TFDS text data set. A batch of 8 rows is computed row by
row, so that a GPT-2 of 124 million parameters fits into 8 GB.
"""

from typing import Any

from ml_collections import ConfigDict

import files
from configs import gpt
from errors import UserError


def get_config(run: str = '') -> ConfigDict:
  if not run:
    raise UserError(
      'configs/finetune.py names no run to start from; give its folder, e.g. '
      '--config=configs/finetune.py:runs/gpt2'
    )
  old = _read_config(run)
  config = start_from(gpt.get_config(), run, fresh='')
  config.objective = old['objective']
  text = old['data']['text']
  config.data.text.update({name: text[name] for name in ('rows', 'next_token', 'kinds')})
  config.data.batch_size = 8
  config.optimizer.model.learning_rate = 3e-5
  config.optimizer.model.schedule.update(name='constant', warmup=0, end=0.0)
  config.train.steps = 100
  config.train.accumulate = 8
  config.train.log_every = 10
  config.train.sample_every = 50
  config.evaluators.test.update(every=50, batch_size=8)
  config.train.samples = 1
  config.checkpoint.every = 50
  del config.evaluators.speed
  return config


def start_from(config: ConfigDict, run: str, fresh: str) -> ConfigDict:
  """Returns `config` with the modules, tokenizer and parameters of a run to start from.

  Args:
    config: the config of the new run, which trains on text.
    run: the folder of the run to start from; '' returns `config` unchanged.
    fresh: regular expression of the parameters that are initialised afresh; '' for none.

  Raises:
    UserError: the folder has no run that trains on text.
  """
  if not run:
    return config
  old = _read_config(run)
  config.modules = old['modules']
  config.data.text.update(
    tokenizer=run, vocabulary=0, specials=(), length=old['data']['text']['length']
  )
  rules = f'{fresh}=skip,.*=load' if fresh else '.*=load'
  config.init_from.model = dict(run=run, module='', rules=rules, checkpoint='')
  return config


def _read_config(run: str) -> dict[str, Any]:
  """Reads the config of a run that trains on text, as plain dicts."""
  path = files.path(run) / 'config.json'
  if not path.is_file():
    raise UserError(f'{run} is no run to start from: there is no {path}; give the folder of one')
  try:
    config = files.read_json(path)
  except ValueError as error:
    raise UserError(f'{path} is damaged ({error}); put it back, or give another run') from error
  sections = ('data', 'modules', 'objective')
  if not isinstance(config, dict) or not all(isinstance(config.get(s), dict) for s in sections):
    raise UserError(f'{path} is no config of a run; put it back, or give another run')
  if not config['data'].get('text'):
    raise UserError(f'{run} is a run without text; start from one of a language model')
  return config
