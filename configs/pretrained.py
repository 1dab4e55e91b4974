"""A config that goes on from another run: its modules, its tokenizer, its parameters."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def start_from(config: ConfigDict, run: str) -> ConfigDict:
  """Returns `config` with the modules and the tokenizer of the run, from which it is to start.

  Args:
    config: of the new run.
    run: the folder of the old one; '' leaves the config as it is.
  """
  if not run:
    return config
  old = json.loads((Path(run) / 'config.json').read_text())
  config.modules = {name: dict(module) for name, module in old['modules'].items()}
  config.data.text.update(
    tokenizer=run, vocabulary=0, specials=(), length=old['data']['text']['length']
  )
  config.init_from = run
  return config
