"""What tests need of a finished run."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from data.spec import Spec
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.metadata import checkpoint_meta
from engine.patience import Patience
from engine.session import open_session
from tests.conftest import ROOT, environment

# A GAN small enough that a step takes a millisecond.
SMALL_GAN = (
  '--config=configs/gan.py',
  '--config.modules.generator.widths=32,16',
  '--config.modules.discriminator.widths=32,16',
  '--config.data.batch_size=16',
  '--config.evaluators.samples.samples=32',
  '--config.evaluators.samples.batch_size=32',
  '--config.evaluators.samples.features.side=4',
)
SMALL_DCGAN = (
  '--config=configs/dcgan.py',
  '--config.modules.generator.widths=8,4',
  '--config.modules.discriminator.widths=4,8',
  '--config.data.batch_size=16',
  '--config.evaluators.samples.samples=32',
  '--config.evaluators.samples.batch_size=32',
  '--config.evaluators.samples.features.side=4',
)
SMALL_VAE = (
  '--config=configs/vae.py',
  '--config.modules.encoder.widths=32,16',
  '--config.modules.encoder.latent_size=2',
  '--config.modules.decoder.widths=16,32',
  '--config.objective.binarise=True',
  '--config.objective.kl_warmup=40',
  '--config.data.batch_size=16',
)
SMALL_CNN = (
  '--config=configs/cnn.py',
  '--config.modules.model.channels=2,4',
  '--config.modules.model.widths=8',
  '--config.data.batch_size=16',
  '--config.evaluators.speed.calls=2',
)
SMALL_MLP = (
  '--config=configs/mlp.py',
  '--config.modules.model.widths=8',
  '--config.data.batch_size=16',
)
SMALL_VQVAE = (
  '--config=configs/vqvae.py',
  '--config.modules.encoder.widths=4,4',
  '--config.modules.encoder.blocks=1',
  '--config.modules.encoder.hidden=4',
  '--config.modules.encoder.code_size=4',
  '--config.modules.codebook.codes=8',
  '--config.modules.decoder.widths=4,4',
  '--config.modules.decoder.blocks=1',
  '--config.modules.decoder.hidden=4',
  '--config.data.batch_size=16',
)

# First names in bytes.
SMALL_TEXT = (
  '--config.data.text.tokenizer=byte',
  '--config.data.text.vocabulary=0',
  '--config.data.name=names',
  '--config.data.batch_size=16',
  '--config.data.text.length=24',
  '--config.modules.model.width=16',
  '--config.optimizer.model.schedule.warmup=0',
  '--config.optimizer.model.learning_rate=1e-2',
  '--config.evaluators.speed.calls=2',
)
SMALL_GPT = (
  '--config=configs/gpt.py',
  *SMALL_TEXT,
  '--config.modules.model.layers=2',
  '--config.modules.model.heads=4',
  '--config.modules.model.hidden=32',
  '--config.modules.model.context=24',
  '--config.train.samples=2',
)
SMALL_RNN = ('--config=configs/rnn.py', *SMALL_TEXT, '--config.train.samples=2')


def train(*arguments, devices: int = 1) -> subprocess.CompletedProcess:
  """Runs train.py, which must succeed."""
  done = subprocess.run(
    [sys.executable, 'train.py', *map(str, arguments)],
    cwd=ROOT,
    env=environment(devices),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done


def every(log: int, checkpoint: int, other: int) -> tuple[str, ...]:
  return (
    f'--config.train.log_every={log}',
    f'--config.checkpoint.every={checkpoint}',
    f'--config.train.sample_every={other}',
    f'--config.evaluators.test.every={other}',
  )


def leaves(workdir: Path) -> dict[str, np.ndarray]:
  """Every leaf of the newest checkpoint's state, by path."""
  config = ConfigDict(run.read_config(str(workdir)))
  spec = Spec.from_json(run.read_description(str(workdir))['data'])
  spec = spec._replace(tokenizer=run.read_tokenizer(str(workdir)))
  # Whatever the mesh of the run, here is one device.
  config.mesh = dict(lane=1, data=-1, fsdp=1, tensor=1)
  session = open_session(config, spec)
  section = {**to_plain(config.checkpoint), 'lanes': session.lanes.number}
  state, _ = Checkpoints(str(workdir), **section, read_only=True).restore(session.abstract)
  flat = jax.tree_util.tree_leaves_with_path(state)
  return {
    jax.tree_util.keystr(path): np.asarray(
      jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    for path, leaf in flat
  }


def assert_same_bits(a: Path, b: Path) -> None:
  first, second = leaves(a), leaves(b)
  assert first.keys() == second.keys()
  for name in first:
    assert first[name].tobytes() == second[name].tobytes(), name


def metrics(workdir: Path) -> list[dict]:
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def kill_when(arguments, signal: int, ready, devices: int = 1) -> subprocess.Popen:
  """Starts train.py and sends `signal` as soon as `ready()`; returns the ended process."""
  process = subprocess.Popen(
    [sys.executable, 'train.py', *map(str, arguments)],
    cwd=ROOT,
    env=environment(devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  deadline = time.time() + 120
  while not ready():
    assert process.poll() is None, f'ended before it was ready:\n{process.stdout.read()}'
    assert time.time() < deadline, 'never got ready'
    time.sleep(0.005)
  process.send_signal(signal)
  process.output, _ = process.communicate(timeout=120)
  return process


def saved_run(workdir: Path, config: ConfigDict, steps: Sequence[int] = (1,)) -> str:
  """Makes a run whose checkpoints hold the state of step 0; returns its folder.

  Args:
    workdir: where the run goes.
    config: of the run.
    steps: of the checkpoints; each ranks better than the one before.
  """
  session = open_session(config)
  run.claim(str(workdir), config, session.spec)
  lanes = session.lanes.number
  section = {**to_plain(config.checkpoint), 'lanes': lanes, 'keep': len(steps)}
  checkpoints = Checkpoints(str(workdir), **section)
  state, better = session.init(), 1 if config.checkpoint.best_mode == 'max' else -1
  for step in steps:
    meta = checkpoint_meta(session, step, [Patience()] * lanes, [])
    figures = [{config.checkpoint.best: better * step}] * lanes
    checkpoints.save(step, state, meta, figures)
  checkpoints.close()
  return str(workdir)


def small(config: ConfigDict) -> ConfigDict:
  """The config with modules of few units, without the evaluators of many samples."""
  for module in config.modules.values():
    module.widths = (16,) * len(module.widths)
  # They need more examples and samples than small runs have.
  for name in ('final', 'copies'):
    if name in config.evaluators:
      del config.evaluators[name]
  return config
