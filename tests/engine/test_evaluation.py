"""Evaluators are opened by name, checked before the first step, and due when they say."""

import jax
import pytest
from ml_collections import ConfigDict

from configs import cgan, gan, gpt, mlp, tabular, vae
from configs.defaults import accuracy_score, examples, measure, samples, speed
from data.section import ALL_FOLDS
from data.source import Source
from engine.evaluation import check_best_mode, open_evaluators, open_lane_evaluators
from engine.preflight import preflight
from engine.session import open_session
from engine.state import averaged_variables, weights
from errors import UserError
from objectives.gan import GAN
from tests.engine.evaluators.fakes import (
  KEY,
  NOTHING,
  Conditioned,
  evaluators_of,
  session_of,
)
from tests.runs import SMALL_GPT, small

PIXELS = dict(name='pixels.BlockMeans', side=2)
FRECHET = dict(fd=dict(name='frechet'))


def test_when_each_is_due():
  evaluators = evaluators_of(
    a=examples(every=4), b=examples(every=6), c=speed(calls=1), d=measure('power', every=3)
  )
  assert evaluators.names == ('a', 'b', 'c', 'd')
  assert evaluators.intervals == (4, 6, 3)
  assert evaluators.due(12, False) == ('a', 'b', 'd')
  assert evaluators.due(8, False) == ('a',)
  assert evaluators.due(5, False) == ()
  assert evaluators.due(5, True) == ('a', 'b', 'd')


def test_no_evaluators():
  none = evaluators_of()
  assert none.names == none.intervals == none.due(0, True) == ()


def test_everything_is_named_after_its_evaluator():
  report = dict(report=dict(name='classification.Report'))
  evaluators = evaluators_of(a=examples(metrics=report), b=samples(PIXELS, FRECHET, samples=9))
  results = evaluators.evaluate('a', NOTHING, KEY, details=True)
  assert {'a/index', 'a/f1', 'a/f1/3'} <= results.figures.keys()
  assert [*results.tables] == [*results.pictures] == ['a/confusion_matrix']
  assert [*evaluators.evaluate('b', NOTHING, KEY).figures] == ['b/fd_pixels2_9-test']


def test_the_average_that_an_entry_names():
  """The discriminator's logits of real images: its raw parameters are negated."""
  config = small(gan.get_config())
  config.data.test_split = 'test[:20]'
  config.ema = {
    'd': dict(module='discriminator', decay=0.9, half_life=0.0),
    'g': dict(module='generator', decay=0.9, half_life=0.0),
    'd2': dict(module='discriminator', decay=0.8, half_life=0.0),
  }
  config.evaluators = {
    f'with_{name}': examples(average=name) for name in ('', 'd', 'd2', 'g', 'none')
  }
  session = open_session(config)
  held = weights(session.init())

  def scaled(tree, factor):
    """The last layer multiplied."""
    (last,) = [name for name in tree if name == 'output']
    return {**tree, last: {k: factor * v for k, v in tree[last].items()}}

  held = held.replace(
    ema={**held.ema, 'd2': {'params': scaled(held.ema['d2']['params'], 3.0)}},
    params={**held.params, 'discriminator': scaled(held.params['discriminator'], -1.0)},
  )
  evaluators = open_evaluators(session)
  found = {
    name: evaluators.evaluate(name, held, KEY).figures[f'{name}/real_logit'].mean
    for name in evaluators.names
  }
  base = found['with_d']
  assert found['with_'] == found['with_g'] == base != 0
  assert found['with_d2'] == pytest.approx(3 * base)
  assert found['with_none'] == pytest.approx(-base)


def test_what_evaluate_py_will_refuse_is_known_in_training():
  sections = dict(
    few=samples(PIXELS, FRECHET, samples=4, every=0),
    enough=samples(PIXELS, FRECHET, samples=5, every=0),
    fashion=samples(dict(name='classifier', weights='fmnist-cnn'), FRECHET, every=0),
  )
  session = session_of(sections, Conditioned)
  sentence = 'config.evaluators.few.samples=4 must be at least 5'
  refused = open_evaluators(session).refused
  # Of 50 examples no covariance of 128 features can be had.
  assert {*refused} == {'few', 'fashion'} and refused['few'].startswith(sentence)
  assert 'config.evaluators.fashion.reference=test has 50 examples' in refused['fashion']
  with pytest.raises(UserError, match=r'fashion\.metrics\.fd on 128 features needs 129'):
    open_evaluators(session, unscheduled=True)


def test_another_split_is_for_evaluators_of_examples_alone():
  session = session_of(
    dict(a=examples(split='train'), b=measure('power'), c=speed(1), d=samples(PIXELS, FRECHET))
  )
  evaluators = open_evaluators(session, split='test')
  # The split called "test" itself, not what `config.data.test_split` names.
  assert [evaluators.spec(name).n for name in 'abcd'] == [1000, 1000, 1000, 50]
  assert evaluators.evaluate('a', NOTHING, KEY).figures['a/index'].mean == 499.5
  with pytest.raises(UserError, match='--split=tset selects no examples of'):
    open_evaluators(session, split='tset')


def test_lanes_that_are_seeds_share_their_evaluators():
  config = small(mlp.get_config())
  config.seeds = 3
  lanes = open_lane_evaluators(open_session(config))
  assert len(lanes) == 3 and lanes[0] is lanes[1] is lanes[2]


def test_lanes_that_are_folds_have_each_its_own_split():
  session = session_of(dict(a=examples(), b=examples(split='train')), folds=3, fold=ALL_FOLDS)
  lanes = open_lane_evaluators(session)
  assert [lane.spec('a').split for lane in lanes] == [f'train, of fold {i} of 3' for i in range(3)]
  assert [lane.number('a') for lane in lanes] == [1333, 1333, 1334]
  means = [lane.evaluate('a', NOTHING, KEY).figures['a/pixel'].mean for lane in lanes]
  assert len(set(means)) == 3
  assert [lane.number('b') for lane in lanes] == [2666] * 3


def test_nothing_is_read_before_an_evaluation(monkeypatch):
  monkeypatch.setattr(Source, 'read', None)
  monkeypatch.setattr(Source, 'load', None)
  evaluators = evaluators_of(
    a=examples(), b=measure('power'), c=speed(1), d=samples(PIXELS, FRECHET)
  )
  assert [evaluators.number(name) for name in 'abcd'] == [50, 50, 4, 1050]


def config_of(module, **evaluators) -> ConfigDict:
  config = module.get_config()
  config.evaluators = evaluators
  return config


def entry(section, **changes) -> dict:
  return {**section.to_dict(), **changes}


REFUSED = {
  'unknown kind': (
    mlp,
    entry(examples(), name='exampels'),
    r'e\.name=exampels: there is no engine/evaluators/exampels\.py \(did you mean "examples"',
  ),
  'no kind': (mlp, entry(examples(), name=''), r'e\.name= must be a word'),
  'unknown option': (
    mlp,
    entry(examples(), evry=3),
    r'e has no option "evry" \(did you mean "every"',
  ),
  'missing option': (
    mlp,
    dict(name='examples', every=1),
    r'config\.evaluators\.e\.batch_size is missing',
  ),
  'negative interval': (mlp, examples(every=-1), r'e\.every=-1 must be at least 0'),
  'no batch': (mlp, examples(batch_size=0), r'e\.batch_size=0 must be at least 1'),
  'another type': (mlp, examples(batch_size='7'), r'e\.batch_size=7 must be a whole number'),
  'no calls': (mlp, speed(calls=0), r'e\.calls=0 must be at least 1'),
  'no samples': (gan, samples(PIXELS, FRECHET, samples=0), r'e\.samples=0 must be at least 1'),
  'unknown average': (
    gan,
    examples(average='genrator'),
    r'e\.average=genrator is unknown \(did you mean "generator"\?\); there are: none, generator',
  ),
  'unknown split': (mlp, examples(split='tset'), r'^config\.evaluators\.e\.split=tset selects no'),
  'unknown reference': (
    gan,
    samples(PIXELS, FRECHET, reference='tset'),
    r'^config\.evaluators\.e\.reference=tset selects no',
  ),
  'unknown measurement': (
    vae,
    measure('liklihood'),
    r'e\.measurement=liklihood is unknown \(did you mean "likelihood"',
  ),
  'unknown option of a measurement': (
    vae,
    measure('likelihood', sample=3),
    r'config\.evaluators\.e\.sample is no option of the measurement "likelihood" \(did you mean ',
  ),
  'range of a measurement': (
    vae,
    measure('likelihood', samples=0),
    r'e\.samples=0 must be at least',
  ),
  'shift as large as the image': (mlp, measure('views', shift=28), 'a view shifted by 28 pixels'),
  'unknown metric': (
    mlp,
    examples(metrics=dict(m=dict(name='calibratoin'))),
    r'e\.metrics\.m\.name=calibratoin',
  ),
  'option of a metric': (
    mlp,
    examples(metrics=dict(m=dict(name='calibration', bin=3))),
    r'e\.metrics\.m has no option "b',
  ),
  'metric without its column': (
    vae,
    examples(metrics=dict(m=dict(name='classification.Report'))),
    r'classification\.Report needs a column "prediction".*have only: label;',
  ),
  'column without integers': (
    mlp,
    examples(metrics=dict(m=dict(name='groups.Gaps', by=('probability',)))),
    'no integer column "probability"',
  ),
  'metric of samples on examples': (
    mlp,
    examples(metrics=FRECHET),
    r'e\.metrics\.fd\.name=frechet is no',
  ),
  'metric of examples on samples': (
    gan,
    samples(PIXELS, dict(m=dict(name='classification.Report'))),
    'is no metric of samples',
  ),
  'unknown extractor': (
    gan,
    samples(dict(name='pixels.BlockMaens', side=2), FRECHET),
    'did you mean "pixels.BlockMeans"',
  ),
  'room of extractors': (
    gan,
    samples(dict(name='inceptionn'), FRECHET),
    'there is no metrics/features/inceptionn.py',
  ),
  'extractor on small images': (
    gan,
    samples(dict(name='pixels.BlockMeans', side=29), FRECHET),
    r"config\.evaluators\.e\.features: side=29 must be from 1 to the image's 28 pixels",
  ),
  'no split': (mlp, examples(split=''), r'e\.split= names no split'),
  'no reference': (gan, samples(PIXELS, FRECHET, reference=''), r'e\.reference= names no split'),
  'parent of evaluators': (mlp, entry(examples(), name='base'), r'e\.name=base names nothing'),
  'a class that is no evaluator': (
    mlp,
    dict(name='batches.Split', open_examples=1, resident_mb=1),
    r'e\.name=batches\.Split names nothing; try: examples, measure, samples, speed',
  ),
  'one sample': (
    gan,
    samples(PIXELS, FRECHET, samples=1),
    r'e\.samples=1 must be at least 5 for config\.evaluators\.e\.metrics\.fd on 4 features',
  ),
  'one example': (
    gan,
    samples(PIXELS, FRECHET, reference='test[:1]'),
    r'e\.reference=test\[:1\] has 1 examples, and .*e\.metrics\.fd on 4 features needs 5 at',
  ),
  'held-out examples that nothing needs': (
    gan,
    samples(PIXELS, FRECHET, held_out='train'),
    r'e\.held_out=train has no effect, since none of its metrics needs it',
  ),
  'one sample of a class': (
    cgan,
    entry(accuracy_score(), samples=1),
    r'e\.samples=1 must be at least 2 for config\.evaluators\.e\.metrics\.cas',
  ),
  'samples of a classifier': (mlp, samples(PIXELS, FRECHET), 'this objective has no sampler'),
  'classes of a model without': (
    gan,
    entry(accuracy_score(), every=1),
    r'e\.metrics\.cas needs samples that are conditioned',
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_is_refused_before_the_first_step(case, monkeypatch):
  module, section, message = REFUSED[case]
  monkeypatch.setattr(Source, 'read', None)
  with pytest.raises(UserError, match=message) as refused:
    open_evaluators(open_session(config_of(module, e=section)), unscheduled=True)
  assert '\n' not in str(refused.value)


def test_samples_of_text_are_no_images():
  from commands import cli

  config = cli.load(SMALL_GPT[0].partition('=')[2])
  config.data.name = 'names'
  config.data.text.update(tokenizer='byte', vocabulary=0, length=24)
  config.modules.model.update(layers=1, width=16, heads=2, hidden=16, context=24)
  config.evaluators = dict(e=samples(PIXELS, FRECHET))
  with pytest.raises(UserError, match='this objective samples tokens; remove it'):
    open_evaluators(open_session(config))


def test_an_evaluator_is_no_player():
  with pytest.raises(UserError, match=r'config\.evaluators\.model has the name of a player'):
    evaluators_of(model=examples())


def test_what_training_does_not_run_is_evaluated_abstractly_by_evaluate_py_alone():
  session = session_of(dict(e=examples(every=0, split='tset')))
  open_evaluators(session)
  with pytest.raises(UserError, match='tset'):
    open_evaluators(session, unscheduled=True)
  session = session_of(dict(e=examples(every=1, split='tset')))
  with pytest.raises(UserError, match='tset'):
    open_evaluators(session)


def test_a_split_that_no_evaluator_reads():
  for sections in (dict(fd=samples(PIXELS, FRECHET)), {}):
    with pytest.raises(UserError, match=r'--split=test\[:9\] has no effect, since no evaluator'):
      open_evaluators(session_of(sections, Conditioned), split='test[:9]')
  both = dict(a=examples(), fd=samples(PIXELS, FRECHET))
  assert open_evaluators(session_of(both, Conditioned), split='test[:9]').number('a') == 9


@pytest.mark.parametrize('family', [gan, vae])
def test_a_table_under_a_config_of_images(family):
  config = small(family.get_config())
  config.data.name = 'breast_cancer'
  with pytest.raises(
    UserError, match=r'config\.modules\..*makes images, and the data set has none'
  ):
    open_session(config)


def test_data_of_another_look_than_that_trained_on():
  config = config_of(tabular, e=examples())
  config.data.test_name = 'mnist5k'
  with pytest.raises(UserError, match='was trained on'):
    open_evaluators(open_session(config))


def test_unlabelled_training_data_is_tested_on_labelled():
  session = session_of(dict(e=examples()))
  features = {'image': session.spec.features['image']}
  unlabelled = session._replace(spec=session.spec._replace(features=features, num_classes=0))
  assert open_evaluators(unlabelled).number('e') == 50


@pytest.mark.parametrize(
  'figure, message',
  [
    (
      'tset/x',
      r'best=tset/x: training runs no evaluator "tset" \(did you mean "test"',
    ),
    ('late/x', r'config.evaluators.late.every is above 0'),
    ('test/accuracy', 'best=test/accuracy is unknown.* there are: test/'),
    ('fd/fd_pixels2_9-test', 'did you mean "fd/fd_pixels2_20-test"'),
  ],
)
def test_a_figure_that_cannot_rank_checkpoints(figure, message):
  evaluators = evaluators_of(
    Conditioned,
    test=examples(),
    late=examples(every=0),
    fd=samples(PIXELS, FRECHET, samples=20),
  )
  for known in ('', 'test/pixel', 'fd/fd_pixels2_20-test'):
    assert evaluators.ranking_figure(known) == known
  assert evaluators.ranking_figure('fd/fd') == 'fd/fd_pixels2_20-test'
  with pytest.raises(UserError, match=message):
    evaluators.ranking_figure(figure)


@pytest.mark.parametrize(
  ('figure', 'mode', 'right'),
  [
    ('test/loss', 'max', 'min'),
    ('fold/accuracy', 'min', 'max'),
    ('samples/fd_pixels14_1k-test', 'max', 'min'),
  ],
)
def test_a_mode_that_keeps_the_worst_is_refused(figure, mode, right):
  with pytest.raises(UserError, match=f'best_mode={mode} keeps .* {figure}, .*set it to {right}'):
    check_best_mode(figure, mode)
  check_best_mode(figure, right)
  for unknown in ('test/kl', 'cas/cas_pixels_4k-test', 'loss', ''):
    check_best_mode(unknown, mode)


def test_a_mode_that_keeps_the_worst_is_refused_before_the_first_step(tmp_path):
  config = mlp.get_config()
  config.checkpoint.best = 'test/loss'
  with pytest.raises(UserError, match='best_mode=max keeps the largest test/loss'):
    preflight(config, str(tmp_path / 'run'))


def test_every_config_names_a_figure_that_ranks():
  for module in (cgan, gan, gpt, mlp, vae):
    config = module.get_config()
    config.data.update(name='names' if module is gpt else 'mnist5k')
    evaluators = open_evaluators(open_session(config))
    best = evaluators.ranking_figure(config.checkpoint.best)
    assert best
    check_best_mode(best, config.checkpoint.best_mode)


@pytest.mark.parametrize(
  ('best', 'close'),
  [
    ('test/acuracy', 'test/accuracy'),  # of the objective
    ('test/precison', 'test/precision'),  # of a metric
    ('test/accuracy_gap_lable', 'test/accuracy_gap_label'),  # of one that has an option
    ('views/los', 'views/loss'),  # of a measurement
    ('speed/latency_ms/p90', 'speed/latency_ms/p9'),
  ],
)
def test_a_typo_in_the_best_figure_is_found_before_the_first_step(best, close):
  config = mlp.get_config('mnist5k')
  config.evaluators.views = measure('views', every=500)
  config.evaluators.speed.every = 500
  evaluators = open_evaluators(open_session(config))
  with pytest.raises(UserError, match=f'best={best} is unknown.*did you mean "{close}'):
    evaluators.ranking_figure(best)


def test_the_figures_that_are_announced_are_those_that_an_evaluation_has():
  for module, data in ((mlp, 'mnist5k'), (tabular, 'breast_cancer'), (tabular, 'diabetes')):
    config = module.get_config(data)
    config.evaluators = {'test': config.evaluators.test}
    config.evaluators.test.split = 'test[:20]'
    session = open_session(config)
    evaluator = open_evaluators(session)._evaluators['test']
    held = averaged_variables(weights(session.init()), {})
    figures = evaluator.evaluate(held, jax.random.key(0), False, None).figures
    assert {*evaluator.figure_names} == {*figures}


@pytest.mark.parametrize('name', ['examples', 'measure', 'samples'])
def test_an_empty_split_is_no_other_name_of_the_test_split(name):
  config = small(gan.get_config()) if name == 'samples' else mlp.get_config()
  if name == 'samples':
    config.evaluators.samples.reference = ''
    key = 'samples.reference'
  else:
    config.evaluators = dict(
      e=examples(split='') if name == 'examples' else measure('views', split='')
    )
    config.evaluators.e.every = 1
    key = 'e.split'
  with pytest.raises(UserError, match=f"config.evaluators.{key}= names no split; give 'test', 't"):
    open_evaluators(open_session(config))


def test_a_metric_that_is_refused_is_named():
  config = mlp.get_config()
  config.evaluators.test.metrics.groups.by = ('',)
  with pytest.raises(UserError, match=r'^config\.evaluators\.test\.metrics\.groups: .*column ""'):
    open_evaluators(open_session(config))


def test_what_was_checked_is_not_traced_again(monkeypatch):
  """The check before the first step costs nothing: the evaluation finds its programs traced."""
  config = small(gan.get_config())
  config.data.test_split = 'test[:20]'
  config.evaluators = dict(
    test=examples(), fd=samples(PIXELS, dict(fd=dict(name='frechet')), samples=20)
  )
  traced = []
  for name in ('evaluate', 'generate'):
    monkeypatch.setattr(GAN, name, _counted(getattr(GAN, name), name, traced))
  session = open_session(config)
  evaluators = open_evaluators(session)
  checked = list(traced)
  assert checked.count('evaluate') == 1 and 'generate' in checked
  held = weights(session.init())
  for name in evaluators.names:
    evaluators.evaluate(name, held, jax.random.key(0))
  assert traced == checked


def _counted(function, name, traced):
  def counting(*inputs):
    traced.append(name)
    return function(*inputs)

  return counting
