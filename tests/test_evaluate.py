"""evaluate.py on finished runs: figures, tables, pictures, overrides, lanes and refusals."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from PIL import Image

from commands import evaluate_run as command
from commands.evaluate_run import Request, evaluate_run
from commands.run_records import read_fingerprint
from configs import cgan, gan, mlp, vae
from configs.defaults import copies, examples, samples
from data.source import Source
from engine import restore
from engine.evaluation import Evaluators, open_evaluators
from engine.evaluators import reference
from engine.lanes import take_lane
from engine.restore import Placement, restore_run
from errors import UserError
from tests.runs import saved_run, small


@pytest.fixture(scope='module')
def vae_run(tmp_path_factory):
  config = small(vae.get_config())
  config.modules.encoder.latent_size = 2
  config.objective.binarise = True
  config.data.test_split = 'test[:60]'
  config.evaluators.likelihood.samples = 20
  return saved_run(tmp_path_factory.mktemp('vae') / 'run', config)


@pytest.fixture(scope='module')
def gan_run(tmp_path_factory):
  """Two seeds with an average of the generator."""
  config = small(gan.get_config())
  config.data.test_split = 'test[:60]'
  config.seeds = 2
  config.evaluators.samples = samples(
    dict(name='pixels.BlockMeans', side=7), dict(fd=dict(name='frechet')), samples=50
  )
  config.checkpoint.best = 'samples/fd_pixels7_50-test'
  return saved_run(tmp_path_factory.mktemp('gan') / 'run', config)


def evaluate(workdir, out, **options):
  evaluate_run(Request(workdir, str(out), **options), ['evaluate.py', f'--workdir={workdir}'])
  return json.loads(out.read_text(), parse_constant=lambda word: pytest.fail(f'{word} in JSON'))


def test_the_figures_of_a_vae(vae_run, tmp_path, capsys):
  written = evaluate(vae_run, tmp_path / 'metrics.json')
  figures = written['metrics']
  assert {f'test/{name}' for name in ('elbo', 'reconstruction', 'kl', 'mse')} <= figures.keys()
  # In expectation the likelihood is above the bound.
  assert -figures['likelihood/nll'] > figures['test/elbo']
  # What training logs of these weights, on the same noise.
  restored = restore_run(vae_run, '')
  logged = open_evaluators(restored.session).evaluate('test', restored.weights, restored.key())
  assert {n: f.mean for n, f in logged.figures.items()} == pytest.approx(
    {name: value for name, value in figures.items() if name.startswith('test/')}
  )
  assert written['standard_errors']['test/elbo'] == pytest.approx(
    logged.figures['test/elbo'].standard_error
  )
  made_by = written['made_by']
  assert made_by['step'] == 1 and made_by['lanes'] == ['seed_0'] and made_by['average'] == ''
  assert {name: spec['n'] for name, spec in made_by['data'].items()} == {
    'test': 60, 'likelihood': 60,
  }  # fmt: skip
  assert made_by['config']['evaluators']['likelihood']['samples'] == 20
  assert made_by['command'].startswith('python evaluate.py --workdir=')
  assert {'versions', 'devices', 'date', 'seconds', 'seed', 'checkpoint'} <= made_by.keys()
  assert {'code', 'trained_by', 'processor', 'xla_flags', 'overrides'} <= made_by.keys()
  assert made_by['fingerprints'] == {'1': read_fingerprint(vae_run, 1)}
  assert made_by['provenance']['test'] == {
    'counts': {'examples': 60}, 'data': {'examples': made_by['data']['test']['identity']},
    'repeatable': True,
  }  # fmt: skip
  printed = capsys.readouterr().out
  for name in figures:
    assert printed.count(f'\n{name} ') == 1
  assert 'data     mnist5k test[:60]: 60 examples (likelihood, test)' in printed


def test_progress_is_shown_before_anything_is_compiled(vae_run, tmp_path, capsys, monkeypatch):
  shown = {}
  evaluated = Evaluators.evaluate

  def noted(self, name, *rest):
    shown[name] = capsys.readouterr().out.splitlines()[-1]
    return evaluated(self, name, *rest)

  monkeypatch.setattr(Evaluators, 'evaluate', noted)
  evaluate(vae_run, tmp_path / 'a.json')
  assert shown == {'likelihood': 'evaluate likelihood 0/60', 'test': 'evaluate test 0/60'}


def test_another_split_another_seed_and_another_file(vae_run, tmp_path):
  written = evaluate(vae_run, tmp_path / 'deep' / 'a.json', split='test[:30]', seed=3)
  made_by = written['made_by']
  assert made_by['seed'] == 3
  assert [(s['n'], s['split']) for s in made_by['data'].values()] == [(30, 'test[:30]')] * 2
  again = evaluate(vae_run, tmp_path / 'b.json', split='test[:30]', seed=3)
  assert again['metrics'] == written['metrics']
  other = evaluate(vae_run, tmp_path / 'c.json', split='test[:30]', seed=4)
  assert other['metrics']['test/elbo'] != written['metrics']['test/elbo']


def test_tables_and_pictures_of_a_classifier(tmp_path):
  config = small(mlp.get_config())
  config.data.test_split = 'test[:60]'
  config.evaluators.speed.calls = 2
  written = evaluate(saved_run(tmp_path / 'run', config), tmp_path / 'metrics.json')
  assert np.array(written['tables']['test/confusion_matrix']).sum() == 60
  assert sum(each['count'] for each in written['tables']['test/reliability']) == 60
  for name in ('confusion_matrix', 'reliability'):
    assert Image.open(tmp_path / f'test_{name}.png').size[0] > 300
  low, high = written['intervals']['test/accuracy_gap_label']
  assert low <= written['metrics']['test/accuracy_gap_label'] <= high
  assert written['metrics']['speed/latency_ms/p50'] > 0
  assert {name.split('/')[0] for name in written['metrics']} == {'test', 'speed'}


def test_some_evaluators_alone(gan_run, tmp_path):
  written = evaluate(gan_run, tmp_path / 'some.json', only=('samples',), lane=0)
  assert {*written['metrics']} == {'samples/fd_pixels7_50-test'}
  assert {*written['made_by']['evaluators']} == {'samples'}
  with pytest.raises(UserError, match=r'--only=sample is unknown \(did you mean "samples"\?\)'):
    evaluate(gan_run, tmp_path / 'none.json', only=('sample',))


def test_one_that_is_refused_does_not_keep_the_others_from_running(gan_run, tmp_path):
  section = restore_run(gan_run, '').session.config.evaluators
  section.copies = copies('mnist5k')
  problem = 'held_out=test has 60 examples.* needs 100 at least; choose a larger split'
  with pytest.raises(UserError, match=f'{problem}; or run the others with --only=') as refusal:
    evaluate(gan_run, tmp_path / 'all.json', evaluators=section)
  others = str(refusal.value).rpartition('--only=')[2].split(',')
  assert set(others) == {'samples', 'test'}
  written = evaluate(gan_run, tmp_path / 'some.json', evaluators=section, only=others, lane=0)
  assert {name.split('/')[0] for name in written['metrics']} == {'samples', 'test'}
  with pytest.raises(UserError, match=f'{problem}$'):
    evaluate(gan_run, tmp_path / 'none.json', evaluators=section, only=('copies',))


def test_all_lanes_and_one(gan_run, tmp_path, capsys):
  written = evaluate(gan_run, tmp_path / 'all.json')
  printed = capsys.readouterr().out
  lanes = written['lanes']
  assert [(e['lane'], e['label'], e['seed'], e['step']) for e in lanes] == [
    (0, 'seed_0', 0, 1), (1, 'seed_1', 1, 1),
  ]  # fmt: skip
  assert written['metrics'].keys() == lanes[0]['metrics'].keys()
  assert 'samples/fd_pixels7_50-test' in written['metrics']
  for name, mean in written['metrics'].items():
    values = [lane['metrics'][name] for lane in lanes]
    assert mean == pytest.approx(np.mean(values))
    assert written['standard_deviations'][name] == pytest.approx(np.std(values, ddof=1))
    assert values[0] != values[1]
  assert written['made_by']['lanes'] == ['seed_0', 'seed_1']
  provenance = written['made_by']['provenance']['samples']
  assert provenance['counts'] == {'reference': 60, 'samples': 50}
  assert provenance['extractor'] == {
    'label': 'pixels7', 'identity': 'BlockMeans(side=7)', 'checksum': '',
  }  # fmt: skip
  (head,) = [line for line in printed.splitlines() if line.startswith('figure')]
  assert head.split() == ['figure', 'mean', 'sd', 'seed_0', 'seed_1']
  (row,) = [line for line in printed.splitlines() if line.startswith('test/real_logit')]
  assert [float(cell) for cell in row.split()[3:]] == pytest.approx(
    [lane['metrics']['test/real_logit'] for lane in lanes], rel=1e-4
  )
  for lane in (0, 1):
    alone = evaluate(gan_run, tmp_path / 'one.json', lane=lane)
    assert alone['metrics'] == pytest.approx(lanes[lane]['metrics'])
    assert alone['made_by']['lanes'] == [f'seed_{lane}'] and 'lanes' not in alone


def test_a_lane_s_noise_is_that_of_its_training(gan_run, tmp_path):
  restored = restore_run(gan_run, '')
  held = take_lane(restored.weights, 1, 2)
  logged = open_evaluators(restored.session).evaluate('test', held, jax.random.key(1)).figures
  written = evaluate(gan_run, tmp_path / 'a.json')['lanes'][1]['metrics']
  for name, figure in logged.items():
    assert written[name] == pytest.approx(figure.mean)


def test_each_lane_is_evaluated_at_its_own_best(tmp_path, monkeypatch):
  config = small(mlp.get_config())
  config.seeds, config.data.test_split = 2, 'test[:20]'
  config.evaluators = dict(test=examples())
  run = saved_run(tmp_path / 'run', config, steps=(3, 7))
  monkeypatch.setattr(restore.Checkpoints, 'best_step', lambda _, lane=0: (7, 3)[lane])
  for checkpoint, steps in (('best', [7, 3]), ('latest', [7, 7]), ('3', [3, 3]), ('', [7, 7])):
    written = evaluate(run, tmp_path / 'a.json', checkpoint=checkpoint)
    assert [lane['step'] for lane in written['lanes']] == steps


def test_an_average_for_all_evaluators(gan_run, tmp_path):
  found = {
    name: evaluate(gan_run, tmp_path / 'a.json', average=name, lane=0)
    for name in ('', 'generator', 'none')
  }
  assert found['none']['made_by']['average'] == 'none'
  # At step 0 the average is the parameters.
  assert found['']['metrics'] == found['generator']['metrics'] == found['none']['metrics']
  asked = []
  with pytest.MonkeyPatch.context() as patch:
    averaged = command.open_lane_evaluators

    def noted(session, *rest, **more):
      asked.extend(section.average for section in session.config.evaluators.values())
      return averaged(session, *rest, **more)

    patch.setattr(command, 'open_lane_evaluators', noted)
    evaluate(gan_run, tmp_path / 'a.json', average='none', lane=0)
  assert asked == ['none', 'none']


def test_a_second_evaluation_reads_no_reference(gan_run, tmp_path, monkeypatch):
  monkeypatch.setattr(reference, 'cache_dir', lambda: tmp_path)
  section = restore_run(gan_run, '').session.config.evaluators
  del section['test']
  first = evaluate(gan_run, tmp_path / 'a.json', evaluators=section)
  monkeypatch.setattr(Source, 'load', lambda _: pytest.fail('the reference is read again'))
  again = evaluate(gan_run, tmp_path / 'b.json', evaluators=section)
  assert again['metrics'] == first['metrics'] and len(again['metrics']) == 1


def test_flags_of_a_run(gan_run, tmp_path, script):
  out = tmp_path / 'a.json'
  overrides = (
    '--config.evaluators.samples.samples=2000',
    '--config.evaluators.samples.features.side=4',
    '--config.evaluators.test.split=test[:10]',
    '--mesh=data:2,fsdp:4',
  )
  done = script('evaluate.py', f'--workdir={gan_run}', f'--out={out}', *overrides, devices=8)
  assert done.returncode == 0, done.stderr
  written = json.loads(out.read_text())
  assert 'samples/fd_pixels4_2k-test' in written['metrics']
  assert written['made_by']['data']['test']['n'] == 10
  assert written['made_by']['evaluators']['samples']['samples'] == 2000
  assert 'mesh lane 1 × data 2 × fsdp 4 × tensor 1' in done.stdout
  assert done.stdout.count('evaluate seed_1 samples 0/2,060\n') == 1


@pytest.mark.slow
def test_a_run_is_placed_by_the_mesh_that_is_asked_for(vae_run, tmp_path, script):
  """The output of the decoder is split over all devices."""
  rules = "(('decoder/hidden_0/kernel', (None, 'fsdp')),)"
  figures = {}
  for name, more in {
    'own': (),
    'short': ('--mesh=fsdp:8', f'--config.sharding={rules}'),
    'long': ('--config.mesh.fsdp=8', '--config.mesh.data=1', f'--config.sharding={rules}'),
  }.items():
    out = tmp_path / f'{name}.json'
    done = script('evaluate.py', f'--workdir={vae_run}', f'--out={out}', *more, devices=8)
    assert done.returncode == 0, done.stderr
    mesh = 'data 8 × fsdp 1' if name == 'own' else 'data 1 × fsdp 8'
    assert f'mesh lane 1 × {mesh} × tensor 1' in done.stdout
    figures[name] = json.loads(out.read_text())['metrics']
  assert figures['short'] == pytest.approx(figures['own'], rel=1e-4)
  assert figures['long'] == pytest.approx(figures['short'], rel=1e-6)


def test_parameters_are_placed_by_the_rules_that_are_asked_for(vae_run):
  rules = (('decoder/hidden_0/kernel', (None, 'fsdp')),)
  placed = restore_run(vae_run, '', placement=Placement({'data': 1}, rules)).weights
  assert placed.params['decoder']['hidden_0']['kernel'].sharding.spec == PartitionSpec(None, 'fsdp')


def test_a_replaced_extractor_loses_the_options_of_the_old_one(gan_run, tmp_path, script):
  out = tmp_path / 'a.json'
  done = script(
    'evaluate.py',
    f'--workdir={gan_run}',
    f'--out={out}',
    '--lane=1',
    '--config.evaluators.samples.features.name=pixels.Pixels',
    '--config.evaluators.samples.samples=785',
    '--config.evaluators.samples.reference=train[:785]',
  )
  assert done.returncode == 0, done.stderr
  assert 'dropped  config.evaluators.samples.features.side' in done.stderr
  assert 'samples/fd_pixels_785-train[:785]' in json.loads(out.read_text())['metrics']


def test_help_lists_the_options_of_the_run(gan_run, script):
  done = script('evaluate.py', f'--workdir={gan_run}', '--help')
  assert done.returncode == 0, done.stderr
  for line in ('--config.evaluators.samples.samples=50', '--config.mesh.fsdp=1', '--average'):
    assert line in done.stdout
  for arguments in (('--help',), ('--help', '--workdir=nowhere')):
    fixed = script('evaluate.py', *arguments)
    assert fixed.returncode == 0 and '--split' in fixed.stdout
    assert 'config.evaluators.samples' not in fixed.stdout


MISTAKES = {
  'unknown evaluator': (
    '--config.evaluators.sample.samples=3',
    'has no option --config.evaluators.sample (did you mean "samples"?)',
  ),
  'new evaluator': ('--config.evaluators.fresh=3', 'config.evaluators has: samples, test'),
  'unknown option': (
    '--config.evaluators.samples.sampels=3',
    'has no option --config.evaluators.samples.sampels (did you mean "samples"?)',
  ),
  'another section': ('--config.train.steps=3', 'config has: evaluators, mesh, sharding'),
  'wrong type': (
    '--config.evaluators.samples.samples=many',
    'samples.samples=many must be a whole number',
  ),
  'out of range': ('--config.evaluators.samples.samples=0', 'samples=0 must be at least 1'),
  'a schedule': ('--config.evaluators.test.every=3', 'test.every has no effect'),
  'axis': ('--mesh=dta:1', '--mesh=dta is unknown (did you mean "data"?)'),
  'size': ('--mesh=data:x', '--mesh=data:x: write AXIS:SIZE'),
  'mesh that does not fit': ('--mesh=data:3', 'but there are 1 devices'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_flags_that_cannot_be_are_one_sentence(gan_run, script, mistake):
  flag, part = MISTAKES[mistake]
  done = script('evaluate.py', f'--workdir={gan_run}', flag)
  assert done.returncode == 2 and part in done.stderr, done.stderr
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr


def test_the_mesh_is_given_once(gan_run, script):
  done = script('evaluate.py', f'--workdir={gan_run}', '--mesh=data:1', '--config.mesh.data=1')
  assert done.returncode == 2 and 'give one of them' in done.stderr, done.stderr


def test_what_stands_for_all_evaluators_is_given_once(gan_run, script):
  done = script(
    'evaluate.py',
    f'--workdir={gan_run}',
    '--average=none',
    '--config.evaluators.samples.average=generator',
  )
  assert done.returncode == 2 and 'give one of them' in done.stderr, done.stderr


@pytest.mark.parametrize('flag', ['--config.evaluators.test.every=1', '--split=test'])
def test_a_folder_that_is_no_run(tmp_path, script, flag):
  done = script('evaluate.py', f'--workdir={tmp_path}/nowhere', flag)
  assert done.returncode == 2 and 'nowhere is no run' in done.stderr, done.stderr


@pytest.mark.parametrize(
  'options, part',
  [
    ({'split': 'tset'}, 'tset'),
    ({'checkpoint': '3'}, '3'),
    ({'seed': -1}, '--seed=-1 must be at least 0'),
    ({'average': 'generatr'}, r'--average=generatr is unknown \(did you mean "generator"'),
    ({'lane': 2}, '--lane=2 is none of the 2 lanes'),
  ],
)
def test_figures_that_cannot_be(gan_run, tmp_path, options, part):
  with pytest.raises(UserError, match=part):
    evaluate(gan_run, tmp_path / 'x.json', **options)
  with pytest.raises(UserError, match=r'must end in \.json'):
    evaluate(gan_run, tmp_path / 'x.txt')


def test_an_evaluator_that_training_does_not_run_is_checked_before_the_first_is_run(
  tmp_path, monkeypatch
):
  config = small(cgan.get_config())
  config.data.test_split = 'test[:20]'
  config.evaluators.samples.features.side = 29
  config.evaluators.samples.every = 0
  run = saved_run(tmp_path / 'run', config)
  monkeypatch.setattr(Evaluators, 'evaluate', lambda *_: pytest.fail('one was run'))
  with pytest.raises(UserError, match='side=29 must be from 1'):
    evaluate(run, tmp_path / 'x.json')


def test_images_of_another_size_than_the_run_s(vae_run, tmp_path, monkeypatch):
  """A data set of the same name that was prepared anew with larger images."""
  plain = Source._features

  def larger(self, name, columns):
    features, classes = plain(self, name, columns)
    return {**features, 'image': ((32, 32, 1), 'uint8')}, classes

  monkeypatch.setattr(Source, '_features', larger)
  with pytest.raises(UserError, match='was trained on'):
    evaluate(vae_run, tmp_path / 'x.json')


def test_a_figure_that_is_not_finite_is_null(vae_run, tmp_path, monkeypatch):
  restored = command.restore_run

  def broken(*arguments):
    found = restored(*arguments)
    return found._replace(weights=jax.tree.map(lambda leaf: leaf * np.nan, found.weights))

  monkeypatch.setattr(command, 'restore_run', broken)
  written = evaluate(vae_run, tmp_path / 'a.json')
  assert written['metrics']['test/elbo'] is None
  assert written['standard_errors']['test/elbo'] is None
