"""Language models through the root scripts: trained, resumed, written with, judged, fine-tuned."""

import json
import signal

import jax
import numpy as np
import pytest

from commands import evaluate_run
from commands.sample_run import Request, sample_run
from data.section import open_testing
from data.source import open_source
from data.text import tokenization
from engine.evaluation import open_evaluators
from engine.restore import restore_run
from errors import UserError
from tests import runs
from tests.golden import short_runs
from tests.golden.short_runs import STEPS

OPTIONS = {'prompt': 'Ann', 'length': 20}


def request_for(gpt, out=None, num=1, seed=3, **options):
  return Request(str(gpt), num=num, seed=seed, out=out, options={**OPTIONS, **options})


def arguments(small, workdir, *more):
  return (*small, *runs.every(log=7, checkpoint=10, other=30), f'--workdir={workdir}', *more)


@pytest.fixture(scope='module')
def gpt():
  return short_runs.folder('causal_lm')


@pytest.fixture(scope='module')
def restored(gpt):
  return restore_run(str(gpt), '')


def written(script, workdir, *more, code=0):
  done = script('sample.py', f'--workdir={workdir}', *more)
  assert done.returncode == code, done.stderr
  assert 'Traceback' not in done.stderr
  return done.stdout if code == 0 else done.stderr


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(gpt, tmp_path, script):
  workdir = tmp_path / 'run'
  whole = arguments(runs.SMALL_GPT, workdir, f'--config.train.steps={STEPS}')
  saved = lambda: (workdir / 'checkpoints' / '20').exists()  # noqa: E731
  assert runs.kill_when(whole, signal.SIGKILL, saved).returncode == -signal.SIGKILL
  done = script('train.py', *whole)
  assert done.returncode == 0, done.stderr
  assert 'resumed' in done.stdout
  runs.assert_same_bits(gpt, workdir)


def test_what_a_run_of_text_holds(gpt):
  tokenizer = tokenization.from_json((gpt / 'tokenizer.json').read_text())
  assert tokenizer.specials == {'end': 256} and tokenizer.size == 257
  assert (gpt / 'samples' / f'step_{STEPS:08d}.txt').read_text().count('\n---------------\n') == 1
  assert 'tokenizer' in json.loads((gpt / 'run.json').read_text())['data']
  last = [line for line in runs.metrics(gpt) if 'test/loss' in line][-1]
  # It has learned something: fewer bits than 8 a byte.
  assert last['test/loss'] < runs.metrics(gpt)[0]['model/loss']
  assert last['test/bits_per_byte'] < 6
  assert last['test/perplexity'] == pytest.approx(np.exp(last['test/loss']))


def test_evaluate_py_says_what_training_logged(gpt, capsys):
  evaluate_run.evaluate_run(evaluate_run.Request(str(gpt), f'{gpt}/metrics.json'), [])
  metrics = json.loads((gpt / 'metrics.json').read_text())
  logged = [line for line in runs.metrics(gpt) if 'test/loss' in line][-1]
  assert metrics['metrics']['test/loss'] == pytest.approx(logged['test/loss'], rel=1e-5)
  assert metrics['standard_errors']['test/loss'] > 0
  assert 'test/bytes' not in metrics['metrics'] and 'perplexity' in capsys.readouterr().out
  # The key of the tokenizer, not its text.
  assert len(metrics['made_by']['data']['test']['tokenizer']) == 16


def test_evaluation_counts_every_token_once(restored):
  """By hand, over the stream without its windows: each token from at most 23 before it."""
  session = restored.session
  config = session.config.copy_and_resolve_references()
  losses = []
  for batch_size in (7, 64):
    config.evaluators.test.batch_size = batch_size
    evaluators = open_evaluators(session._replace(config=config))
    results = evaluators.evaluate('test', restored.weights, restored.key())
    losses.append(results.figures['test/loss'].mean)
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
  source = open_testing(session.data, session.spec)
  rows = source.read(range(len(source)))
  model, total, count = session.objective.modules['model'], 0.0, 0
  logits = np.asarray(
    model.apply(restored.variables()['model'], rows['tokens'][:, :-1], train=False)
  ).astype(np.float64)
  shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for row, tokens, length in zip(shares, rows['tokens'], rows['length']):
    for t in range(1, length):
      total -= row[t - 1, tokens[t]]
      count += 1
  assert count == sum(len(name) + 1 for name in names_of('validation')) - 1
  assert losses[0] == pytest.approx(total / count, rel=1e-5)


def names_of(split):
  source = open_source('names', split, '')
  return [text for text in source.read(range(len(source)))['text']]


def test_writing(gpt, tmp_path, script):
  text = written(script, gpt, '--prompt=Ann', '--length=20', '--seed=3')
  assert text.startswith('Ann') and 4 <= len(text) <= 21
  several = written(
    script, gpt, '--prompt=Ann', '--length=20', '--seed=3', '--num=3', f'--out={tmp_path}/t.txt'
  )
  assert several.split('\n---------------\n')[0] == text.removesuffix('\n')
  assert (tmp_path / 't.txt').read_text() == several[: several.index('3 texts')]
  assert 'there is no flag --label' in written(script, gpt, '--label=1', code=2)


def test_the_likeliest_text_needs_no_luck(gpt, capsys):
  sample_run(request_for(gpt, temperature=0.0, num=2, seed=None))
  first, _, second = capsys.readouterr().out.splitlines()
  assert first == second and first.startswith('Ann')


def test_past_the_context_text_goes_on(gpt, tmp_path, capsys):
  """The model sees 24 tokens; at this temperature few texts end early."""
  sample_run(request_for(gpt, out=f'{tmp_path}/t.npz', num=4, length=60, temperature=30.0))
  rows = np.load(tmp_path / 't.npz')['tokens']
  assert rows.shape == (4, 60) and (rows[:, 24:] >= 0).any()
  assert capsys.readouterr().out.count('---------------') == 3


@pytest.mark.parametrize('size', [3, 24, 30])
def test_past_the_context_a_text_is_that_of_the_last_tokens(gpt, restored, size, tmp_path):
  """Greedy, against the model on the last 24 tokens alone at every step."""
  prompt = 'Maria Anna Elisabeth Charlotte'[:size]
  sample_run(
    request_for(gpt, out=f'{tmp_path}/t.npz', prompt=prompt, length=40, temperature=0.0, seed=None)
  )
  model, given = restored.session.objective.modules['model'], restored.variables()['model']
  forward = jax.jit(lambda row: model.apply(given, row[None], train=False)[0])
  tokenizer = tokenization.from_json(restored.session.spec.tokenizer)
  tokens = tokenizer.encode(prompt).tolist()
  while len(tokens) < 40:
    seen = tokens[-24:]
    logits = forward(np.array(seen + [0] * (24 - len(seen)), np.int32))
    tokens.append(int(logits[len(seen) - 1].argmax()))
    if tokens[-1] == tokenizer.specials['end']:
      tokens.pop()
      break
  assert np.load(tmp_path / 't.npz')['tokens'][0].tolist() == tokens


MISTAKES = {
  'long prompt': (dict(prompt=24 * 'a'), 'the prompt has 24 tokens'),
  'top_p': (dict(top_p=0.0), '--top_p=0.0 must be above 0 and at most 1'),
  'top_k': (dict(top_k=-1), '--top_k=-1 must be at least 0'),
  'temperature': (dict(temperature=-1.0), '--temperature=-1.0 must be at least 0'),
  'beyond float32': (
    dict(temperature=1e300),
    '--temperature=1e+300 must be a finite number that float32 holds',
  ),
  'num': (dict(num=0), '--num=0 must be at least 1'),
  'seed': (dict(seed=-1), '--seed=-1 must be at least 0'),
  'ending': (dict(out='x.png'), 'must end in .txt'),
  'folder': (dict(out='/dev/null/x.txt'), 'cannot write --out=/dev/null/x.txt: /dev/null is no'),
  'far too long': (dict(length=10**9), '--length=1000000000 must be at least 2 and at most'),
  'more than there are': (dict(top_k=10**5), '--top_k=100000 must be at least 0 and at most 2'),
  'greedy top_k': (
    dict(temperature=0.0, top_k=5, seed=None),
    '--top_k=5 has no effect with --temperature=0',
  ),
  'greedy top_p': (dict(temperature=0.0, top_p=0.5, seed=None), '--top_p=0.5 has no effect with'),
  'greedy seed': (dict(temperature=0.0, seed=3), '--seed=3 has no effect with --temperature=0'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_one_sentence(gpt, mistake):
  wrong, sentence = MISTAKES[mistake]
  with pytest.raises(UserError) as error:
    sample_run(request_for(gpt, **wrong))
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_tokens_of_texts(gpt, restored, tmp_path, capsys):
  sample_run(request_for(gpt, out=f'{tmp_path}/t.npz', num=3))
  rows = np.load(tmp_path / 't.npz')['tokens']
  tokenizer = tokenization.from_json(restored.session.spec.tokenizer)
  texts = [tokenizer.decode(row[row >= 0]) for row in rows]
  assert all(text.startswith('Ann') for text in texts) and len(rows) == 3
  assert capsys.readouterr().out.startswith('\n---------------\n'.join(texts))


@pytest.mark.slow
def test_a_character_that_the_vocabulary_lacks(tmp_path, script):
  workdir = tmp_path / 'run'
  runs.train(
    *arguments(
      runs.SMALL_RNN, workdir, '--config.train.steps=2', '--config.data.text.tokenizer=character'
    )
  )
  assert "lacks 'é'" in written(script, workdir, '--prompt=René', code=2)
  assert written(script, workdir, '--prompt=Ren', '--length=8').startswith('Ren')


def test_options_of_text_are_for_language_models(tmp_path, script):
  runs.train(*runs.SMALL_GAN, f'--workdir={tmp_path}/gan', '--config.train.steps=2')
  assert 'there is no flag --prompt' in written(script, f'{tmp_path}/gan', '--prompt=a', code=2)


def test_fine_tuning_takes_modules_tokenizer_and_parameters(gpt, tmp_path, script):
  workdir = tmp_path / 'tuned'
  done = runs.train(
    f'--config=configs/finetune.py:{gpt}',
    '--config.data.name=names',
    '--config.train.steps=1',
    '--config.optimizer.model.learning_rate=0.0',
    f'--workdir={workdir}',
  )
  assert 'missing' not in done.stdout and 'transfer' in done.stdout
  assert (workdir / 'tokenizer.json').read_text() == (gpt / 'tokenizer.json').read_text()
  before, after = runs.leaves(gpt), runs.leaves(workdir)
  name = ".params['model']['block_1']['mlp']['up']['kernel']"
  np.testing.assert_array_equal(before[name], after[name])
  message = script('train.py', f'--config=configs/finetune.py:{tmp_path}').stderr
  assert 'is no run to start from' in message and message.count('\n') == 1


@pytest.mark.slow
def test_a_bert_becomes_a_classifier(tmp_path, script):
  bert, names = tmp_path / 'bert', tmp_path / 'names'
  small = (*runs.SMALL_TEXT, *(word for word in runs.SMALL_GPT if 'modules' in word))
  runs.train('--config=configs/bert.py', *small, f'--workdir={bert}', '--config.train.steps=2')
  done = runs.train(
    f'--config=configs/bert_classify.py:{bert}',
    '--config.optimizer.model.learning_rate=0.0',
    '--config.optimizer.model.schedule.warmup=0',
    '--config.train.steps=2',
    f'--workdir={names}',
  )
  assert 'skipped 2: model/output/bias, model/output/kernel' in done.stdout
  before, after = runs.leaves(bert), runs.leaves(names)
  for name in ('embedding', 'block_1'):
    found = [path for path in before if path.startswith(f".params['model']['{name}']")]
    for path in found:
      np.testing.assert_array_equal(before[path], after[path])
    assert found
  assert runs.metrics(names)[-1]['test/accuracy'] > 0


def test_text_needs_a_config_of_text(script):
  message = script('train.py', '--config=configs/vae.py', '--config.data.name=names').stderr
  assert 'names is text, and config.data.text is empty' in message
  message = script('train.py', '--config=configs/gpt.py', '--config.data.name=mnist5k').stderr
  assert 'mnist5k has none' in message and 'Traceback' not in message


MESHES = {
  'all axes': ('--config.mesh.data=2', '--config.mesh.fsdp=2', '--config.mesh.tensor=2'),
  'scanned blocks': ('--config.mesh.data=1', '--config.mesh.fsdp=2', '--config.mesh.tensor=4'),
}


@pytest.mark.slow
@pytest.mark.parametrize('mesh', MESHES)
def test_eight_devices_equal_one(tmp_path, mesh):
  """With gradient accumulation."""
  small = (*runs.SMALL_GPT, '--config.train.accumulate=2', '--config.train.steps=8')
  small += (f'--config.modules.model.scan={mesh == "scanned blocks"}',)
  one, eight = tmp_path / 'one', tmp_path / 'eight'
  runs.train(*arguments(small, one))
  runs.train(*arguments(small, eight, *MESHES[mesh]), devices=8)
  first, second = runs.leaves(one), runs.leaves(eight)
  for name in first:
    if first[name].dtype.kind == 'f':
      np.testing.assert_allclose(first[name], second[name], atol=1e-5, err_msg=name)
