"""Microbatches are one batch: the same noise for every example, and the whole batch's gradient."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import mlp
from models.pseudo_inputs import PseudoInputs
from objectives.base import Aux, Batch, Objective, Player
from objectives.causal_lm import CausalLM
from objectives.classify import Classify
from objectives.gan import GAN
from objectives.iwae import IWAE
from objectives.masked_lm import MaskedLM
from objectives.tag import Tag
from objectives.vae import VAE
from objectives.vampprior import VampPrior
from tests.objectives.models_of_text import Table, V
from tests.steps import first_state, train_step

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


def assert_accumulation_changes_nothing(objective: Objective, batch: Batch) -> None:
  """One update of plain descent comes to the same whether the batch is whole or in halves."""
  whole, cut = (train_step(objective, ROWS, pieces) for pieces in (1, 2))
  state = first_state(whole, batch, scale=2.0)
  (after, metrics), (after_cut, metrics_cut) = (
    jax.jit(step.__call__)(state, batch) for step in (whole, cut)
  )
  for module, params in state.params.items():
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, after.params[module])
    assert max(jax.tree.leaves(moved)) > 1e-3, module
  difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, after_cut.params)
  assert max(jax.tree.leaves(difference)) < 1e-5, difference
  for name, mean in metrics.items():
    np.testing.assert_allclose(metrics_cut[name].value, mean.value, 1e-4, 1e-5, err_msg=name)


@pytest.mark.parametrize('name', CASES)
def test_accumulation_changes_nothing(name):
  make, batch = CASES[name]
  assert_accumulation_changes_nothing(make(), batch)


# --- what is drawn, laid open: the gradient of row b of the parameters is what example b has drawn


class Rows(nn.Module):
  """The parameters [ROWS, 32] of each example's row, half of them dropped in training."""

  @nn.compact
  def __call__(self, rows, train):
    w = self.param('w', nn.initializers.zeros, (ROWS, 32))
    return nn.Dropout(0.5, deterministic=not train)(w[rows])


@dataclasses.dataclass(frozen=True)
class Open(Objective):
  """The loss is linear in its parameters, by what is drawn: dropout, or noise of `context.keys`."""

  drawn: str

  @property
  def players(self):
    return (Player('model', ('model',), self._loss),)

  def init(self, key, batch):
    return {'model': self.modules['model'].init(key, batch['row'], train=False)}

  def evaluate(self, variables, batch, keys):
    raise AssertionError('a step evaluates nothing')

  def _loss(self, params, mutable, batch, context):
    if self.drawn == 'dropout':
      kept, _ = self._apply_training('model', params, mutable, batch['row'], rngs=context.rngs)
      return kept.sum(axis=-1).mean(), Aux({}, {})
    noise = jax.vmap(lambda key: jax.random.normal(key, (32,)))(context.fold('noise'))
    rows = params['model']['w'][batch['row']]
    return (rows * noise).sum(axis=-1).mean(), Aux({}, {})


def drawn(what: str, pieces: int) -> np.ndarray:
  """What the examples [ROWS, 32] of one update have drawn."""
  step = train_step(Open({'model': Rows()}, what), ROWS, pieces)
  batch = {'row': jnp.arange(ROWS)}
  state, _ = jax.jit(step.__call__)(first_state(step, batch), batch)
  return -state.params['model']['w'] * ROWS / 0.1


def test_the_noise_of_an_example_is_the_same_in_every_microbatch():
  whole = drawn('noise', 1)
  for pieces in (2, 4):
    np.testing.assert_allclose(drawn('noise', pieces), whole, rtol=1e-4, atol=1e-5)
  assert np.unique(whole.round(3), axis=0).shape[0] == ROWS
  np.testing.assert_allclose([whole.mean(), whole.std()], [0, 1], atol=0.3)


@pytest.mark.parametrize('pieces', [2, 4])
def test_dropout_masks_of_microbatches_differ(pieces):
  masks = drawn('dropout', pieces)
  np.testing.assert_allclose(np.unique(masks.round(3)), [0, 2])
  assert np.unique(masks.round(3), axis=0).shape[0] == ROWS
