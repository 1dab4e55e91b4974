"""Evaluated runs side by side: which belong together, their intervals, and those refused."""

import copy
import json

import pytest
from scipy import stats

from commands.compare_results import compare_results, group_results, table, written
from commands.result_files import expand, read_result
from errors import UserError
from tests.commands.recorded import CONFIG, SAMPLES, content, run

FD = 'samples/fd_pixels7_50-test'


def config(**changes):
  """The config with other values by their places, e.g. `train__steps=3`."""
  changed = copy.deepcopy(CONFIG)
  for place, value in changes.items():
    *sections, key = place.split('__')
    inner = changed
    for section in sections:
      inner = inner.setdefault(section, {})
    inner[key] = value
  return changed


def groups_of(tmp_path, *files):
  folders = [run(tmp_path / f'r{i}', each) for i, each in enumerate(files)]
  return group_results([read_result(folder) for folder in folders])


def test_seeds_and_lanes_of_one_config_are_one_group(tmp_path):
  values = [1.0, 2.0, 4.0, 5.5]
  lanes = [{FD: value} for value in values[2:]]
  (group,) = groups_of(
    tmp_path,
    content({FD: values[0]}, intervals={FD: [0.5, 1.5]}),
    # Where the data lie and how often a run logs change nothing.
    content({FD: values[1]}, config=config(train__seed=1, data__data_dir='/x', train__log_every=3)),
    content({FD: 4.75}, seed=2, lanes=lanes),
  )
  estimate = group.estimates[FD]
  assert estimate.number == 4 and estimate.mean == pytest.approx(3.125)
  low, high = stats.t.interval(0.95, 3, loc=3.125, scale=stats.sem(values))
  assert estimate.interval == pytest.approx((low, high))
  assert '4 seeds (0, 1, 2, 3), step 10' in group.description


def test_one_training_has_its_own_interval(tmp_path):
  one, other = groups_of(
    tmp_path,
    content(
      {FD: 1.0, 'test/loss': 2.0, 'test/f1': 0.5, 'test/odd': None},
      intervals={FD: [0.5, 2.0]},
      standard_errors={'test/loss': 0.1},
    ),
    content({FD: 3.0}, config=config(train__steps=20)),
  )
  assert one.estimates[FD].interval == (0.5, 2.0)
  assert one.estimates['test/loss'].interval == pytest.approx((2 - 0.196, 2 + 0.196), abs=1e-4)
  assert one.estimates['test/f1'].interval is None
  shown = [written(estimate) for estimate in one.estimates.values()]
  assert shown == ['1 ± 0.75', '2 ± 0.2', '0.5', 'not finite']
  assert written(other.estimates.get('test/loss')) == '–'


def test_trainings_that_differ_in_more_than_the_seed_are_apart(tmp_path):
  groups = groups_of(
    tmp_path,
    content({FD: 1.0}),
    content({FD: 1.0}, config=config(train__seed=1, train__steps=20)),
    content({FD: 1.0}, config=config(train__seed=2), step=7),
    content(
      {FD: 1.0}, seed=3, evaluators={'samples': {'name': 'samples', 'average': 'none'}},
      provenance={},
    ),
    content({FD: 1.0}, seed=4),
  )  # fmt: skip
  assert [len(group.results) for group in groups] == [2, 1, 1, 1]


def test_trainings_that_stopped_at_their_own_best_are_together(tmp_path):
  stopped = [
    content({FD: 1.0}, config=config(train__seed=seed, train__patience=2), step=3 + seed)
    for seed in (0, 1)
  ]
  (group,) = groups_of(tmp_path, *stopped)
  assert 'steps 3 to 4' in group.description


def changed(**provenance):
  return {'samples': {**copy.deepcopy(SAMPLES), **provenance}}


INCOMPARABLE = {
  'data': ({'data': {'reference': 'xyz'}}, 'data.reference: abc → xyz'),
  'counts': ({'counts': {'reference': 60, 'samples': 70}}, 'counts.samples: 50 → 70'),
  'extractor': (
    {'extractor': {**SAMPLES['extractor'], 'checksum': '9'}}, 'extractor.checksum:  → 9',
  ),
  'metric': ({'metrics': {'fd': 'Frechet(x=1)'}}, 'metrics.fd: Frechet() → Frechet(x=1)'),
}  # fmt: skip


@pytest.mark.parametrize('what', INCOMPARABLE)
def test_figures_that_were_computed_from_something_else(tmp_path, what):
  provenance, part = INCOMPARABLE[what]
  with pytest.raises(UserError, match='cannot be compared') as raised:
    groups_of(tmp_path, content({FD: 1.0}), content({FD: 1.0}, provenance=changed(**provenance)))
  assert part in str(raised.value)
  for name in ('r0', 'r1'):
    assert str(tmp_path / name) in str(raised.value)


def test_further_metrics_are_no_difference(tmp_path):
  more = changed(metrics={'fd': 'Frechet()', 'kid': 'Kernel()'})
  (group,) = groups_of(
    tmp_path, content({FD: 1.0}), content({FD: 2.0, 'x/kid': 1.0}, seed=1, provenance=more)
  )
  assert group.estimates[FD].number == 2 and group.estimates['x/kid'].number == 1


def test_a_training_that_is_there_twice(tmp_path):
  with pytest.raises(UserError, match=r'r1 are the same training, of one config and seed 0'):
    groups_of(tmp_path, content({FD: 1.0}), content({FD: 1.0}))


def test_no_figure_in_common(tmp_path):
  other = content({'test/loss': 1.0}, provenance={}, evaluators={}, config=config(seeds=1, x=2))
  with pytest.raises(UserError, match=r'r0 and \S*r1 have no figure'):
    groups_of(tmp_path, content({FD: 1.0}), other)


def test_the_table_fits_a_terminal(tmp_path, capsys):
  for at in range(7):
    figures = {f'samples/precision_fmnist-cnn_10k-train_{i}': 0.123456 + at for i in range(3)}
    intervals = {name: [value - 0.01, value + 0.01] for name, value in figures.items()}
    written_file = content(figures, intervals=intervals, config=config(train__steps=at))
    run(tmp_path / f'a_run_with_a_long_name_{at}', written_file)
  compare_results([f'{tmp_path}/a_run*'])
  lines = capsys.readouterr().out.splitlines()
  rows = [line for line in lines if line.startswith(('figure', 'samples/'))]
  assert max(map(len, rows)) <= 100
  heads = [line for line in rows if line.startswith('figure')]
  # The names are too long for a column, so that letters stand for them.
  assert [title for head in heads for title in head.split()[1:]] == [*'ABCDEFG']
  assert len(heads) > 1
  for head, row in zip(heads, rows[1::4]):
    assert row.index('± 0.01') > head.index(head.split()[1])
  assert '0.12346 ± 0.01' in rows[1]


def test_only_a_figure_with_a_known_direction_is_marked(tmp_path):
  ranked = config(checkpoint__best='samples/fd')
  better, same = (
    [
      content(
        {FD: value, 'test/x': value}, intervals={FD: [value - half, value + half]},
        config={**ranked, 'data': {'name': str(value)}},
      )
      for value in (1.0, 2.0)
    ]
    for half in (0.4, 0.6)
  )  # fmt: skip
  shown = table(groups_of(tmp_path / 'a', *better))
  assert '1 ± 0.4*' in shown and shown.count('*') == 2  # and what it means
  assert '*' not in table(groups_of(tmp_path / 'b', *same))
  for each in better:
    each['made_by']['config']['checkpoint']['best_mode'] = 'max'
  assert '2 ± 0.4*' in table(groups_of(tmp_path / 'c', *better))
  # An interval over samples is not compared with one over seeds.
  seed = copy.deepcopy(better[0])
  seed['made_by']['config']['train']['seed'] = 1
  assert '*' not in table(groups_of(tmp_path / 'd', *better, seed))


def test_runs_that_cannot_be_read(tmp_path):
  bare = run(tmp_path / 'bare', {})
  for text, part in (
    ('{', 'is damaged: it is no JSON'),
    ('[1]', 'is damaged'),
    (json.dumps(content({FD: 'x'})), 'is damaged'),
    (json.dumps({'metrics': {}, 'made_by': {}}), 'does not say all that its figures were made by'),
  ):
    (tmp_path / 'bare/metrics.json').write_text(text)
    with pytest.raises(UserError, match=part):
      read_result(bare)
  (tmp_path / 'bare/metrics.json').unlink()
  with pytest.raises(UserError, match=f'run python evaluate.py --workdir={bare}'):
    compare_results([bare])


def test_folders_and_patterns(tmp_path):
  names = [run(tmp_path / 'x' / name, content({FD: 1.0})) for name in ('a', 'b1', 'b2')]
  assert expand([f'{tmp_path}/x']) == names
  assert expand([f'{tmp_path}/x/b*', names[0], names[1]]) == [names[1], names[2], names[0]]
  for given, part in (
    ([f'{tmp_path}/y*'], 'matches no folder'),
    ([f'{tmp_path}/y'], 'there is no folder'),
    ([], '--runs= names no run'),
  ):
    with pytest.raises(UserError, match=part):
      expand(given)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='there is no run below it'):
    expand([f'{tmp_path}/empty'])
