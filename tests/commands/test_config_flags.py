"""The flag --config: what is added to a config, what flags change, and where the stored one is."""

import json

import pytest
from absl import flags

from commands import cli, config_flags, overrides
from data.spec import Spec
from engine import run
from errors import UserError
from tests.conftest import ROOT

GAN = f'--config={ROOT}/configs/gan.py'


@pytest.fixture
def parse(monkeypatch):
  """`parse(*words)` returns the config that train.py trains, given its command line."""
  monkeypatch.setattr(cli, 'show_in_help', lambda *_: None)
  known = set(flags.FLAGS)

  def parsed(*words, define=config_flags.define_training_config):
    flags.FLAGS.remove_flag_values([name for name in flags.FLAGS if name not in known])
    flags.DEFINE_string('workdir', None, '')
    flags.FLAGS(list(define(['train.py', *words])))
    return flags.FLAGS.config

  yield parsed
  flags.FLAGS.remove_flag_values([name for name in flags.FLAGS if name not in known])


def runs_of(config):
  return {module: entry.run for module, entry in config.init_from.items()}


def test_every_module_can_start_from_another_run(parse):
  assert runs_of(parse(GAN)) == {'generator': '', 'discriminator': ''}
  config = parse(GAN, '--config.init_from.generator.run=a', '--config.init_from.generator.module=g')
  assert runs_of(config) == {'generator': 'a', 'discriminator': ''}
  assert config.init_from.generator.to_dict() == dict(
    run='a', module='g', rules='.*=load', checkpoint=''
  )
  assert runs_of(parse(GAN, '--config.init_from', 'b')) == {'generator': 'b', 'discriminator': 'b'}
  config = parse(GAN, '--config.init_from=b', '--config.init_from.generator.run=c')
  assert runs_of(config) == {'generator': 'c', 'discriminator': 'b'}


def test_a_run_finds_its_files_from_every_folder(parse, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = parse(GAN, '--config.data.name=folder:x', '--config.data.test_name=npz:y/z.npz')
  assert config.data.name == f'folder:{tmp_path}/x'
  assert config.data.test_name == f'npz:{tmp_path}/y/z.npz'
  run.claim('run', config, Spec('x', 'train', 1, {}, 0, 'identity'))
  monkeypatch.chdir('/')
  assert parse(f'--workdir={tmp_path}/run').data.name == f'folder:{tmp_path}/x'
  with pytest.raises(UserError, match='names no path'):
    parse(GAN, '--config.data.name=folder:')


def test_a_source_in_the_config_stays(parse):
  config = parse(GAN).copy_and_resolve_references()
  with config.unlocked():
    config.init_from = dict(generator=dict(run='x', module='', rules='a=load', checkpoint='3'))
  config_flags.complete_init_from(config)
  assert config.init_from.generator.to_dict() == dict(
    run='x', module='', rules='a=load', checkpoint='3'
  )
  assert config.init_from.discriminator.run == ''


@pytest.mark.parametrize(
  'words', [('--config.seeds=8', '--config.profile'), ('--config.seeds', '8', '--config.profile')]
)
def test_plain_options(parse, words):
  config = parse(GAN, *words)
  assert (config.seeds, type(config.seeds), config.profile) == (8, int, True)


def test_another_optimizer_with_options_of_its_own(parse, capsys):
  before = parse(GAN).optimizer.generator.to_dict()
  place = '--config.optimizer.generator'
  config = parse(
    GAN,
    f'{place}.name=sgd',
    f'{place}.momentum',
    '0.9',
    f'{place}.nesterov=True',
    f'{place}.clip=1',
  )
  own = dict(name='sgd', momentum=0.9, nesterov=True, clip=1.0)
  lost = ['b1', 'b2']
  assert config.optimizer.generator.to_dict() == {
    name: value for name, value in {**before, **own}.items() if name not in lost
  }
  assert sorted(capsys.readouterr().err.splitlines()) == [
    f'dropped  config.optimizer.generator.{name}: it belongs to adam' for name in lost
  ]
  # Without the other name there is no such option, and no other's is added.
  with pytest.raises(UserError, match=r'has no option --config\.optimizer\.generator\.momentum'):
    parse(GAN, f'{place}.momentum=0.9')
  with pytest.raises(UserError, match=r'optimizer\.generator\.momentun .did you mean "momentum"'):
    parse(GAN, f'{place}.name=sgd', f'{place}.momentum=0.9', f'{place}.momentun=0.9')


def test_options_that_a_thing_takes_and_the_config_does_not_give(parse):
  """In any order, and of any kind of thing."""
  config = parse(
    f'--config={ROOT}/configs/cnn.py',
    '--config.optimizer.model.eps=1e-6',
    '--config.optimizer.model.b1=0.8',
    '--config.modules.model.dropout=0.25',
  )
  assert (config.optimizer.model.eps, config.optimizer.model.b1) == (1e-6, 0.8)
  assert config.modules.model.dropout == 0.25
  config = parse(
    GAN,
    '--config.objective.penalties.r2=3',
    '--config.evaluators.samples.metrics.fd.name=accuracy_score',
    '--config.evaluators.samples.metrics.fd.width=8',
    '--config.evaluators.samples.metrics.fd.max_iter=3',
    '--config.evaluators.samples.metrics.fd.seed=0',
    '--config.evaluators.samples.features.name=pixels.Pixels',
  )
  assert config.objective.penalties.r2 == 3
  assert config.evaluators.samples.metrics.fd.to_dict() == dict(
    name='accuracy_score', width=8, max_iter=3, seed=0
  )
  assert config.evaluators.samples.features.to_dict() == dict(name='pixels.Pixels')


@pytest.mark.parametrize(
  ('word', 'message'),
  [
    ('modules.model.dropuot=0.1', r'--config\.modules\.model\.dropuot .did you mean "dropout"'),
    ('optimizer.model.momentum=0.9', r'has no option --config\.optimizer\.model\.momentum'),
    ('optimizer.model.mask=True', r'has no option --config\.optimizer\.model\.mask'),
    ('evaluators.test.metrics.report.bins=3', r'--config\.evaluators\.test\.metrics\.report\.bins'),
    ('evaluators.tset.every=3', r'--config\.evaluators\.tset .did you mean "test"'),
    ('modules.model.name=cnn.CNNN', r'modules\.model\.name=cnn\.CNNN names nothing .did you mean'),
    ('seed=3', r'has no option --config\.seed .did you mean "seeds"'),
    ('train.steps.x=3', 'is a value and has no "x" below it'),
    ('train.steps', r'--config\.train\.steps has no value; write --config\.train\.steps=VALUE'),
    ('modules.model.channels.0=3', r'channels is set as a whole, such as .*channels=32,64'),
    ('modules.model.channels=3,,4', r'channels=3,,4 has an empty place between its commas'),
    ('data.classes=,3', r'classes=,3 has an empty place between its commas'),
    (
      'evaluators.test.metrics.new.bins=5',
      r'has no option --config\.evaluators\.test\.metrics\.new',
    ),
    ('ema.model.decay=0.9', r'has no option --config\.ema\.model'),
    ('data.text.length=3', r'--config\.data\.text\.length has no effect: config\.data\.text is em'),
    ('optimizer.name=sgd', r'no option --config\.optimizer\.name; config\.optimizer has: model'),
    ('evaluators.name=speed', r'no option --config\.evaluators\.name; .* has: speed, test'),
    (
      'optimizer.modle.name=sgd',
      r'no section config\.optimizer\.modle .did you mean "model"\?.; .* has: model; a new one '
      r'needs --config\.optimizer\.modle\.learning_rate, ',
    ),
    (
      'evaluators.spede.name=speed',
      r'no section config\.evaluators\.spede .did you mean "speed"\?.; .*\.spede\.calls',
    ),
    ('trian.extra.name=3', r'has no option --config\.trian .did you mean "train"'),
  ],
)
def test_options_that_nothing_takes(parse, word, message):
  with pytest.raises(UserError, match=message):
    parse(f'--config={ROOT}/configs/cnn.py', f'--config.{word}')


@pytest.mark.parametrize(
  ('word', 'value'),
  [
    ('evaluators.test.metrics.groups.by=label,sex', ('label', 'sex')),
    ('evaluators.test.metrics.groups.by=label', ('label',)),
    ("evaluators.test.metrics.groups.by=('label', 'sex')", ('label', 'sex')),
    ('evaluators.test.metrics.groups.by="label"', ('label',)),
    ('modules.model.widths=8,4', (8, 4)),
    ('modules.model.widths=8', (8,)),
    ('modules.model.widths=[8, 4]', (8, 4)),
    ('modules.model.widths=(8)', (8,)),
    ('modules.model.widths=', ()),
    ('data.classes=3,5', (3, 5)),
    ('data.classes=()', ()),
    ('data.columns=sex,age', ('sex', 'age')),
    ('optimizer.model.schedule.factors=1,.5', (1.0, 0.5)),
    ('sharding=(("kernel$", (None, "fsdp")),)', (('kernel$', (None, 'fsdp')),)),
    ('data.fold=-1', -1),
    ('data.split=train[:10]', 'train[:10]'),
    ('data.augment.flip', True),
    ('data.augment.flip=1', True),
    ('optimizer.model.learning_rate=1', 1.0),
    ('checkpoint.best=', ''),
  ],
)
def test_values_as_they_are_written(parse, word, value):
  config = parse(f'--config={ROOT}/configs/mlp.py', f'--config.{word}')
  key = word.partition('=')[0]
  for part in key.split('.'):
    config = config[part]
  assert config == value and type(config) is type(value)


def test_whole_sections_that_flags_add(parse):
  """In any order."""
  config = parse(
    f'--config={ROOT}/configs/mlp.py',
    '--config.evaluators.test.metrics.fine.bins=50',
    '--config.evaluators.test.metrics.fine.name=calibration',
    '--config.ema.slow.module=model',
    '--config.ema.slow.decay=0.9',
    '--config.ema.slow.half_life=0',
    '--config.evaluators.more.name=examples',
    '--config.evaluators.more.split=train',
    '--config.evaluators.more.every=3',
    '--config.evaluators.more.batch_size=10',
    '--config.evaluators.more.average=',
    '--config.evaluators.more.metrics.report.name=classification.Report',
  )
  test, more = config.evaluators.test, config.evaluators.more
  assert test.metrics.fine.to_dict() == dict(name='calibration', bins=50)
  assert {*test.metrics} == {'calibration', 'groups', 'report', 'fine'}
  assert config.ema.slow.to_dict() == dict(module='model', decay=0.9, half_life=0.0)
  assert more.name == 'examples' and more.split == 'train'
  assert more.metrics.to_dict() == dict(report=dict(name='classification.Report'))
  with pytest.raises(UserError, match=r'metrics\.fine\.name=calibrashun'):
    parse(
      f'--config={ROOT}/configs/mlp.py', '--config.evaluators.test.metrics.fine.name=calibrashun'
    )
  with pytest.raises(UserError, match=r'metrics\.fine\.bin .did you mean "bins"'):
    place = '--config.evaluators.test.metrics.fine'
    parse(f'--config={ROOT}/configs/mlp.py', f'{place}.name=calibration', f'{place}.bin=3')


def test_a_flag_is_no_value_of_another(parse):
  with pytest.raises(UserError, match=r'--config\.train\.steps has no value'):
    parse(GAN, '--config.train.steps', '--config.seeds=3')
  assert parse(GAN, '--config.data.fold', '-1').data.fold == -1


def test_of_a_config_given_twice_the_last_one_counts(parse):
  assert parse(f'--config={ROOT}/configs/mlp.py', GAN).objective.name == 'gan'


def test_of_an_option_given_twice_the_last_one_counts(parse):
  config = parse(
    GAN,
    '--config.modules.generator.widths=8,4',
    '--config.train.steps=3',
    '--config.modules.generator.widths=16',
    '--config.train.steps',
    '4',
    '--config.profile',
    '--noconfig.profile',
    '--config.optimizer.generator.name=sgd',
    '--config.optimizer.generator.name=adam',
  )
  assert (config.modules.generator.widths, config.train.steps) == ((16,), 4)
  assert config.profile is False
  assert config.optimizer.generator.name == 'adam' and config.optimizer.generator.b1 == 0.0


@pytest.mark.parametrize(
  ('word', 'message'),
  [
    ('train.steps=1.5', '--config.train.steps=1.5 must be a whole number'),
    ('train.steps=0', '--config.train.steps=0 must be at least 1'),
    ('train.steps=', '--config.train.steps= must be a whole number'),
    ('train.epochs=nan', '--config.train.epochs=nan must be a finite number'),
    ('profile=maybe', '--config.profile=maybe must be True or False'),
    ('data.classes=3,a', '--config.data.classes=3,a: a must be a whole number'),
    (
      'optimizer.generator.b1=1',
      'generator.b1=1.0 must be at least 0 and below 1',
    ),
    ('data.augment.rotate=inf', '--config.data.augment.rotate=inf must be a finite number'),
  ],
)
def test_values_of_another_type_or_out_of_range(parse, word, message):
  with pytest.raises(UserError) as refused:
    parse(GAN, f'--config.{word}')
  assert message in str(refused.value)


# --- a config of one's own ------------------------------------------------------------------------

OWN = """
from configs import mlp

def get_config():
  config = mlp.get_config()
  with config.unlocked(), config.ignore_type():
    {}
  return config
"""


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('config.modules = None', r'config\.modules=None must be a section of options'),
    ('config.init_from = 3', r'config\.init_from=3 must be a section of options'),
    ('config = None', r'get_config\(\) returned None, and must return'),
    ('config = dict(config)', 'returned a dict, and must return an ml_collections.ConfigDict'),
    ('del config.train', 'the config has no section "train"'),
    ('config.optimiser = dict()', r'config\.optimiser is no section .did you mean "optimizer"'),
  ],
)
def test_a_config_without_its_sections(parse, tmp_path, line, message):
  file = tmp_path / 'own.py'
  file.write_text(OWN.format(line))
  with pytest.raises(UserError, match=rf'own\.py: .*{message}'):
    parse(f'--config={file}', '--config.train.steps=3')


# --- what the file of a config does ---------------------------------------------------------------


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('def get_config(:\n  pass\n', r'own\.py, line 1: invalid syntax; mend the config'),
    (
      'def get_config():\n  return 1 / 0\n',
      r'own\.py, line 2: ZeroDivisionError: division by zero;',
    ),
    (
      'import nowhere_at_all\n',
      r"own\.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_",
    ),
    (
      'from configs import mlp\ndef get_config():\n  return mlp.get_config(mode=3)\n',
      r'own\.py, line 3: TypeError: get_config.. got an unexpected keyword',
    ),
    ('raise ValueError\n', r'own\.py, line 1: ValueError: without a reason; mend the config'),
    ('get_config = 5\n', r'own\.py is no config: it defines no get_config'),
    (
      'def get_config(size):\n  pass\n',
      r'get_config\(size\) in .*own\.py does not take .* gives none',
    ),
  ],
)
def test_a_config_that_fails_is_told_with_its_line(parse, tmp_path, text, message):
  file = tmp_path / 'own.py'
  file.write_text(text)
  with pytest.raises(UserError, match=message):
    parse(f'--config={file}')


def test_an_argument_that_a_config_does_not_take(parse, tmp_path):
  file = tmp_path / 'own.py'
  file.write_text('def get_config():\n  pass\n')
  with pytest.raises(UserError, match=r'get_config\(\) in .*own\.py:large gives it one'):
    parse(f'--config={file}:large')


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('', r'there is no config --config=;'),
    ('gan', r'there is no config --config=gan .did you mean "configs/gan.py"'),
    ('configs/GAN.py', r'--config=configs/GAN\.py .did you mean "configs/gan.py"'),
    ('README.md', r'--config=README\.md is no file of Python'),
  ],
)
def test_what_is_no_config(parse, monkeypatch, path, message):
  monkeypatch.chdir(ROOT)
  with pytest.raises(UserError, match=message):
    parse(f'--config={path}')


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--conifg=configs/gan.py'], r'there is no flag --conifg .did you mean "--config"'),
    (['--workdir=x', '--configs=configs/gan.py'], r'there is no flag --configs'),
    (['-c', 'configs/gan.py'], r'there is no flag --c'),
  ],
)
def test_a_slip_in_the_flag_of_the_config(parse, words, message):
  with pytest.raises(UserError, match=message):
    parse(*words)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('del config.modules.model.name', r'config\.modules\.model\.name is missing'),
    ('config.optimizer.model.name = None', r'config\.optimizer\.model\.name=None must be a word'),
    ('config.optimizer.model = None', r'^config\.optimizer\.model=None must be a section of opt'),
  ],
)
def test_flags_of_a_thing_without_a_name(parse, tmp_path, line, message):
  file = tmp_path / 'own.py'
  file.write_text(OWN.format(line))
  place = 'modules.model.widths=8' if 'modules' in line else 'optimizer.model.clip=1'
  with pytest.raises(UserError, match=message):
    parse(f'--config={file}', f'--config.{place}')
  # --help lists what there is all the same.
  listed = overrides.listed(cli.load(str(file)))
  assert '--config.optimizer.model.learning_rate=0.001' in listed or 'modules' not in line


def test_another_module_with_options_of_its_own(parse, capsys):
  place = '--config.modules.generator'
  config = parse(GAN, f'{place}.name=dcgan.Generator', f'{place}.widths=8,4')
  assert config.modules.generator.widths == (8, 4)
  assert 'activation' not in config.modules.generator
  assert 'config.modules.generator.activation: it belongs to mlp' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('word', 'message'),
  [
    ('--config.init_from.genrator.run=x', 'did you mean "generator"'),
    ('--config.train.step=3', r'configs/gan\.py has no option --config\.train\.step '),
    ('--config.train.steps.more=3', 'is a value and has no "more" below it'),
    ('--config.train=3', 'is a section; set one of: --config.train.'),
  ],
)
def test_keys_that_are_not_there(parse, word, message):
  with pytest.raises(UserError, match=message):
    parse(GAN, word)


# --- runs that have started -----------------------------------------------------------------------

REFUSING = """
from pathlib import Path
from configs import gan
from errors import UserError

def get_config(run):
  if not Path(run).is_dir():
    raise UserError(f'{run} has moved')
  config = gan.get_config()
  config.init_from.generator = dict(run=run, module='', rules='.*=load', checkpoint='')
  return config
"""


@pytest.fixture
def started(parse, tmp_path):
  """(--config of a run that started from another, --workdir of it, the folder of the other)."""
  file, source, workdir = (tmp_path / name for name in ('starts.py', 'source', 'run'))
  file.write_text(REFUSING)
  source.mkdir()
  config = parse(f'--config={file}:{source}', '--config.train.seed=7')
  features = {'image': ((28, 28, 1), 'uint8')}
  run.claim(str(workdir), config, Spec('mnist5k', 'train', 4000, features, 10, 'identity'))
  return f'--config={file}:{source}', f'--workdir={workdir}', source


def stored(workdir):
  return json.loads(open(f'{workdir.partition("=")[2]}/config.json').read())


def test_a_run_goes_on_from_its_folder_alone(parse, started):
  _, workdir, _ = started
  config = parse(workdir, '--config.train.steps=9')
  assert config.train.steps == 9
  config.train.steps = stored(workdir)['train']['steps']
  assert json.loads(config.to_json()) == stored(workdir)
  # Lists of JSON are tuples again.
  config = parse(workdir, '--config.modules.generator.widths=8,4')
  assert config.modules.generator.widths == (8, 4)


def test_a_moved_source_changes_nothing(parse, started, capsys):
  config, workdir, source = started
  source.rename(source.with_name('elsewhere'))
  going_on = parse(config, workdir, '--config.train.seed=7', '--config.train.steps=9')
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and f'{source} has moved' in said and 'is used' in said
  assert going_on.train.steps == 9 and going_on.init_from.generator.run == str(source)
  assert going_on.train.seed == 7


def test_only_the_run_that_started_there_goes_on(parse, started, tmp_path):
  config, workdir, source = started
  source.rename(source.with_name('elsewhere'))
  with pytest.raises(UserError, match='source has moved'):
    parse(config, f'--workdir={tmp_path}/new')
  with pytest.raises(UserError, match='other has moved'):
    parse(config.replace(str(source), f'{tmp_path}/other'), workdir)
  # A slip in the name of the config's file is no moved source.
  with pytest.raises(UserError, match='there is no config'):
    parse(config.replace('starts.py', 'strats.py'), workdir)
  # Nor does anything but train.py go on with a run.
  with pytest.raises(UserError, match='source has moved'):
    parse(config, workdir, define=config_flags.define_config)


def test_a_folder_without_a_run_needs_a_config(parse, tmp_path):
  with pytest.raises(UserError, match=r'give --config too, .* holds no run'):
    parse(f'--workdir={tmp_path}')


def test_a_test_split_with_folds_has_no_effect(parse):
  split = '--config.data.test_split=test[:10]'
  config = f'--config={ROOT}/configs/mlp.py'
  assert parse(config, split).data.test_split == 'test[:10]'
  assert parse(config, '--config.data.folds=5').data.folds == 5
  message = r'--config\.data\.test_split=test\[:10\] has no effect with config\.data\.folds=5'
  for words in ((split, '--config.data.folds=5'), ('--config.data.folds=5', *split.split('='))):
    with pytest.raises(UserError, match=message):
      parse(config, *words)
