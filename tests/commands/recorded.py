"""The metrics.json of runs that were never trained, for tests of what reads such files."""

import copy
import json

# A run's config as far as the figures of runs are compared by it.
CONFIG = {
  'objective': {'name': 'gan'},
  'data': {'name': 'mnist5k', 'data_dir': ''},
  'train': {'seed': 0, 'steps': 10, 'epochs': 0.0, 'patience': 0},
  'seeds': 1,
  'checkpoint': {'best': '', 'best_mode': 'min'},
  'evaluators': {},
}
SAMPLES = {
  'counts': {'reference': 60, 'samples': 50},
  'data': {'reference': 'abc'},
  'extractor': {'label': 'pixels7', 'identity': 'BlockMeans(side=7)', 'checksum': ''},
  'metrics': {'fd': 'Frechet()'},
  'repeatable': True,
}


def content(metrics, seed=0, lanes=None, **changes):
  """What a metrics.json holds.

  Args:
    metrics: figures by name, of the run or the mean of its lanes.
    seed: the first one that was trained with.
    lanes: the figures of each lane, if there are several.
    changes: of keys of `made_by`; `standard_errors` and `intervals` stand beside `metrics`.
  """
  beside = {key: changes.pop(key) for key in ('standard_errors', 'intervals') if key in changes}
  config = copy.deepcopy(CONFIG)
  config['train']['seed'] = seed
  made_by = {
    'command': 'python evaluate.py --workdir=runs/a',
    'workdir': '/nowhere/runs/a',
    'step': 10,
    'checkpoint': '',
    'fingerprints': {'10': 'f00d'},
    'lane': None,
    'lanes': [f'seed_{seed}'],
    'average': '',
    'split': '',
    'seed': "the run's own",
    'config': config,
    'evaluators': {'samples': {'name': 'samples', 'samples': 50, 'average': ''}},
    'provenance': {'samples': SAMPLES},
    'date': '2026-11-28T00:00:00+00:00',
    **changes,
  }
  written = {'metrics': metrics, **beside, 'made_by': made_by}
  if lanes is not None:
    written['lanes'] = [
      {'lane': i, 'label': f'seed_{seed + i}', 'seed': seed + i, 'step': 10, 'metrics': figures}
      for i, figures in enumerate(lanes)
    ]
  return json.loads(json.dumps(written))


def run(folder, written):
  """Makes a folder that looks like an evaluated run; returns its name."""
  folder.mkdir(parents=True)
  (folder / 'metrics.jsonl').write_text('')
  (folder / 'metrics.json').write_text(json.dumps(written))
  return str(folder)
