"""Pictures of a run: sample i depends on its number alone, and what is printed is what was made."""

import re

import jax
import numpy as np
import pytest

from commands import render_samples
from commands.sample_run import Request, sample_run
from configs import cgan as config_of_cgan
from configs import cvae as config_of_cvae
from configs import mlp as config_of_mlp
from configs import vae as config_of_vae
from engine.restore import restore_run
from errors import UserError
from objectives.base import numbered_keys, stream_key
from tests import runs


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  config = runs.small(config_of_vae.get_config())
  config.modules.encoder.latent_size = 2
  return runs.saved_run(tmp_path_factory.mktemp('vae') / 'run', config)


@pytest.fixture(scope='module')
def cgan(tmp_path_factory):
  """Two lanes."""
  config = runs.small(config_of_cgan.get_config())
  config.seeds = 2
  return runs.saved_run(tmp_path_factory.mktemp('cgan') / 'run', config)


@pytest.fixture
def made(tmp_path):
  """`made(workdir, …)` returns the images that sample.py writes."""

  def images(workdir, out='x.npz', **options):
    sample_run(Request(workdir, out=f'{tmp_path}/{out}', **options))
    return np.load(f'{tmp_path}/{out}')['image']

  return images


# --- samples --------------------------------------------------------------------------------------


def test_a_sample_depends_on_its_number_and_the_seed_alone(cgan, made, monkeypatch):
  monkeypatch.setattr(render_samples, 'CHUNK', 4)
  seven, two = made(cgan, num=7, seed=3), made(cgan, num=2, seed=3)
  assert seven.shape == (7, 28, 28, 1) and seven.dtype == np.float32
  np.testing.assert_allclose(seven[:2], two, atol=1e-6)
  apart = [np.abs(seven[i] - seven[j]).max() for i in range(7) for j in range(i)]
  assert min(apart) > 1e-3
  assert np.abs(made(cgan, num=2, seed=4) - two).max() > 1e-3


def test_labels_are_every_class_in_turn_or_the_one_requested(cgan, made):
  restored = restore_run(cgan, 'latest')
  gan = restored.session.objective
  keys = numbered_keys(stream_key(jax.random.key(0), 'sample'), np.arange(12))
  for options, labels in (({}, np.arange(12) % 10), ({'label': 3}, np.full(12, 3))):
    expected = gan.generate(restored.variables(), gan.latents(keys), labels)
    np.testing.assert_allclose(made(cgan, num=12, options=options), expected, atol=1e-5)


def test_lanes_are_apart_and_the_first_is_taken(cgan, made, capsys):
  first = made(cgan, num=2)
  assert 'lane     0 of 2: seed_0' in capsys.readouterr().out
  second = made(cgan, num=2, lane=1)
  assert 'lane     1 of 2: seed_1' in capsys.readouterr().out
  assert np.abs(first - second).max() > 1e-3
  with pytest.raises(UserError, match='--lane=2 is none of the 2 lanes'):
    made(cgan, lane=2)


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('kind', 'num', 'split', 'shown', 'shape'),
  [
    ('reconstruct', 5000, 'test[:12]', '12 test images', (4, 8)),
    ('interpolate', 5000, 'test[:5]', '2 pairs of test images', (2, 13)),
    ('traverse', 10, 'test[:3]', '2 latent dimensions, the most used first', (2, 11)),
    ('manifold', 3, '', '3 points along a side', (3, 3)),
  ],
)
def test_the_count_is_what_the_picture_shows(vae, made, capsys, kind, num, split, shown, shape):
  images = made(vae, kind=kind, num=num, split=split)
  assert images.shape == (*shape, 28, 28, 1)
  assert capsys.readouterr().out.startswith(f'{kind}: {shown}, step 1 of {vae}: ')


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(kind='interpolate', split='test[:1]'), r'needs 2 examples .* test\[:1\] has 1'),
    (dict(kind='manifold', num=100_000), '10,000,000,000 images of 28 × 28 × 1, and a .png holds'),
    (dict(kind='manifold', num=100_000, out='x.npz'), 'a .npz holds 1,369,568 .* a smaller --num'),
    (dict(num=5_000_000), 'a .png holds 85,598 of them at most; let --out end in .npz'),
    (dict(num=5_000_000, out='x.npz'), r'--num=5000000 makes 5,000,000 images'),
    (dict(num=10**9), '--num=1000000000 must be at least 1 and at most'),
    (dict(split='test'), '--split=test has no effect with --kind=prior'),
    (dict(kind='manifold', split='test'), '--split=test has no effect with --kind=manifold'),
    (dict(kind='manifold', seed=3), '--seed=3 has no effect with --kind=manifold'),
    (dict(lane=1), '--lane=1: .* has one lane, number 0; leave --lane out'),
    (dict(checkpoint='²'), '--checkpoint=² must be latest, best or one of the steps saved: 1'),
    (dict(checkpoint='01'), '--checkpoint=01 must be'),
    (dict(checkpoint='9'), '--checkpoint=9 must be'),
    (dict(kind='reconstruct', out='name'), 'for --kind=reconstruct makes no data set'),
    (dict(average='generator'), '--average=generator is unknown'),
    (
      dict(options={'guidance': 2.0}),
      r'--guidance is no option of the sampler of .*; it has: none',
    ),
  ],
)
def test_mistakes_are_found_before_memory_is_spent(vae, tmp_path, monkeypatch, options, message):
  monkeypatch.setattr(render_samples, 'sample_chunks', lambda *_: pytest.fail('it samples'))
  with pytest.raises(UserError, match=message):
    sample_run(Request(vae, **{**options, 'out': f'{tmp_path}/new/{options.get("out", "x.png")}'}))
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('ending', ['.png', '.npz'])
def test_a_place_that_cannot_be_written_is_found_before_anything_is_sampled(
  vae, tmp_path, monkeypatch, ending
):
  monkeypatch.setattr(render_samples, 'sample_chunks', lambda *_: pytest.fail('it samples'))
  out = tmp_path / f'folder{ending}'
  out.mkdir()
  with pytest.raises(UserError, match=f'--out={out} is a folder; give the name of a file'):
    sample_run(Request(vae, out=str(out)))
  # No process may make files there, whoever it belongs to.
  with pytest.raises(UserError, match=f'cannot write --out=/proc/x{ending}: '):
    sample_run(Request(vae, out=f'/proc/x{ending}'))
  (tmp_path / 'loop').symlink_to('loop')
  with pytest.raises(UserError, match=f'--out=.*/x{ending}: .*/loop is no folder'):
    sample_run(Request(vae, out=f'{tmp_path}/loop/x{ending}'))


def test_a_manifold_of_a_conditioned_model_shows_a_test_example(tmp_path, made):
  config = runs.small(config_of_cvae.get_config())
  config.modules.encoder.latent_size = 2
  cvae = runs.saved_run(tmp_path / 'cvae', config)
  # The examples of these seeds are not all of one class.
  shown = [made(cvae, kind='manifold', num=2, split='test', seed=seed) for seed in range(4)]
  assert shown[0].shape == (2, 2, 28, 28, 1)
  assert max(np.abs(shown[0] - other).max() for other in shown) > 1e-4


def test_a_classifier_is_not_sampled_from(tmp_path):
  mlp = runs.saved_run(tmp_path / 'mlp', runs.small(config_of_mlp.get_config()))
  with pytest.raises(UserError, match=r'mlp is not sampled from, .* choose --kind from: explain'):
    sample_run(Request(mlp))


def test_a_sampler_option_and_a_split_that_change_nothing(cgan, tmp_path):
  for options in (dict(options={'label': 3}), dict(split='test')):
    with pytest.raises(UserError, match='has no effect with --kind=interpolate'):
      sample_run(Request(cgan, 'interpolate', out=f'{tmp_path}/x.png', **options))
  with pytest.raises(UserError, match=re.escape('--label=10 must be at least 0 and at most 9')):
    sample_run(Request(cgan, out=f'{tmp_path}/x.png', options={'label': 10}))


def test_a_picture_of_the_model_alone_needs_no_data(cgan, made, monkeypatch):
  monkeypatch.setattr(render_samples, 'open_split', lambda *_: pytest.fail('data were opened'))
  assert made(cgan, kind='interpolate', num=3).shape == (3, 11, 28, 28, 1)
