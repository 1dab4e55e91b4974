"""Dense classifier of scikit-learn's breast-cancer table, or linear regression of its diabetes one.

  python train.py --config=configs/tabular.py              # breast_cancer: malignant or benign
  python train.py --config=configs/tabular.py:diabetes     # progression of the disease in a year

The classifier has 64 ReLU units and one sigmoid. Accuracy 0.991 on 113 test biopsies; R² 0.44 on 88
test patients, where least squares reaches 0.447; seconds on a CPU (docs/results.md).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import mlp
from configs.defaults import optimizer
from errors import UserError, nearest

# What differs between the two tables.
TABLES: dict[str, dict[str, Any]] = {
  'breast_cancer': dict(
    loss='binary', widths=(64,), learning_rate=1e-3, best='accuracy', mode='max'
  ),
  'diabetes': dict(loss='squared', widths=(), learning_rate=1.0, best='loss', mode='min'),
}


def get_config(data: str = 'breast_cancer') -> ConfigDict:
  if data not in TABLES:
    raise UserError(
      f'configs/tabular.py:{data} is unknown{nearest(data, TABLES)}; there are: {", ".join(TABLES)}'
    )
  table = TABLES[data]
  config = mlp.get_config(data)
  config.objective.input = 'inputs'
  config.objective.loss = table['loss']
  config.modules.model.widths = table['widths']
  config.modules.model.normalise = True
  config.optimizer.model = optimizer('adam', table['learning_rate'])
  config.optimizer.model.schedule.name = 'cosine'
  config.train.epochs = 100.0
  config.train.log_every = 100
  config.evaluators.test.every = 200
  config.checkpoint.best = f'test/{table["best"]}'
  config.checkpoint.best_mode = table['mode']
  if table['loss'] == 'squared':
    config.evaluators.test.metrics = dict(report=dict(name='regression.Report'))
  return config
