"""Of every objective: microbatches come to the whole batch, with its noise and its targets."""

import jax.numpy as jnp
import numpy as np
import pytest

from models import mlp
from models.pseudo_inputs import PseudoInputs
from objectives.base import Objective
from objectives.causal_lm import CausalLM
from objectives.classify import Classify
from objectives.gan import GAN
from objectives.iwae import IWAE
from objectives.masked_lm import MaskedLM
from objectives.tag import Tag
from objectives.vae import VAE
from objectives.vampprior import VampPrior
from tests.marks import slow_where
from tests.objectives.models_of_text import Table, V
from tests.steps import assert_accumulation_changes_nothing

SHAPE = (4, 4, 1)
ROWS = 4
RNG = np.random.default_rng(3)
IMAGES = {
  'image': jnp.asarray(RNG.random((ROWS, *SHAPE), np.float32)),
  'label': jnp.arange(ROWS) % 3,
}
# As many targets in no two microbatches.
TEXT = {
  'tokens': jnp.asarray(RNG.integers(2, V, (ROWS, 9)), jnp.int32),
  'kind': jnp.asarray(RNG.integers(0, 3, (ROWS, 9)), jnp.int32),
  'length': jnp.array([9, 3, 7, 2], jnp.int32),
}


def gan(**options) -> GAN:
  modules = {
    'generator': mlp.Generator((5,), 'tanh', SHAPE),
    'discriminator': mlp.Discriminator((5,), 'tanh'),
  }
  penalties = {'r1': 1.0, 'gradient_penalty': 1.0}
  return GAN(
    modules, loss='hinge', penalties=penalties, n_critic=1, latent_size=3, **options
  )  # fmt: skip


def autoencoder(kind: type[VAE], **options) -> VAE:
  modules = {
    'encoder': mlp.Encoder((5,), 'tanh', latent_size=2),
    'decoder': mlp.Decoder((5,), 'tanh', image_shape=SHAPE),
    **({'pseudo_inputs': PseudoInputs(3, SHAPE)} if kind is VampPrior else {}),
  }
  off = dict(variance=0.0, kl_weight=1.0, kl_warmup=0, free_bits=0.0, binarise=True)
  return kind(modules, reconstruction='bernoulli', **off, **options)


def text(kind: type[Objective], causal: bool = False, **options) -> Objective:
  return kind({'model': Table(causal=causal)}, **options)


CASES = {
  'gan': (lambda: gan(penalty_every=1), IMAGES),
  'lazy_gan': (lambda: gan(penalty_every=2), IMAGES),
  'vae': (lambda: autoencoder(VAE), IMAGES),
  'iwae': (lambda: autoencoder(IWAE, importance_samples=3), IMAGES),
  'vampprior': (lambda: autoencoder(VampPrior), IMAGES),
  'classify': (
    lambda: Classify(
      {'model': mlp.MLP((5,), 'tanh')}, input='image', loss='softmax', label_smoothing=0.1,
      class_weights=(1.0, 2.0, 3.0), num_classes=3,
    ),
    IMAGES,
  ),
  'causal_lm': (
    lambda: text(
      CausalLM, True, vocabulary=V, specials={}, token_bytes=None, separate_documents=False
    ),
    TEXT,
  ),
  'masked_lm': (
    lambda: text(
      MaskedLM, vocabulary=V, specials={'pad': 0, 'mask': 1}, mask_rate=0.5,
      mask_token_fraction=0.8, random_token_fraction=0.1,
    ),
    TEXT,
  ),
  'tag': (lambda: text(Tag, num_classes=3), TEXT),
}  # fmt: skip


@pytest.mark.parametrize('name', slow_where(lambda name: name in ('iwae', 'vampprior'), CASES))
def test_accumulation_changes_nothing(name):
  make, batch = CASES[name]
  assert_accumulation_changes_nothing(make(), batch)
