"""Classification and regression: one module `model`, one player, a loss of its outputs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from errors import UserError
from losses import classification
from objectives.base import (
  Aux,
  Batch,
  Captions,
  Context,
  Legend,
  Measurement,
  Objective,
  Picture,
  Player,
  Predictor,
  Row,
  Variables,
)
from objectives.names import entries, pick
from objectives.rankings import conclude_class, of_classes, top_option
from options import Option, option
from sampling import attributions, heat_maps
from sampling.test_time_augmentation import views_of

# The path from black to the image is cut into this many pieces for integrated gradients.
_INTEGRATION_STEPS = 64
# Side and step of the grey square of an occlusion map, as shares of the image's side.
_WINDOW, _STRIDE = 1 / 7, 1 / 14
_EXPLANATIONS = ('image', 'saliency', 'integrated gradients', 'occlusion')


@dataclasses.dataclass(frozen=True)
class Classify(Objective):
  """Module `model` (inputs, train) -> outputs [B, outputs]; its field `outputs` is set from here.

  Attributes:
    num_classes: K, given by the data.
  """

  input: str = option(
    'What the model sees: `image`, or `inputs` of a table.', choices=('image', 'inputs')
  )
  loss: str = option(
    'Loss of an example; `squared` is a regression of `target`.',
    choices=tuple(entries(classification)),
  )
  label_smoothing: float = option(
    'ε, share of a target that is spread evenly over all classes.', low=0, below=1
  )
  class_weights: Sequence[float] = option(
    'A factor on the loss of the examples of each class; empty for 1.', low=0
  )
  num_classes: int = 0

  def __post_init__(self):
    where = 'config.objective'
    if self._classes:
      self._check_classes(where)
    for option_name, default in (('label_smoothing', '0'), ('class_weights', '()')):
      if getattr(self, option_name) and not self._classes:
        raise UserError(
          f'{where}.{option_name} has no effect with {where}.loss={self.loss}, which has no '
          f'classes; leave it at {default}'
        )
    self._configure('model', outputs=self._loss.outputs(self.num_classes))

  def _check_classes(self, where: str) -> None:
    classes = self.num_classes
    if classes < 2:
      has = 'no classes' if not classes else 'one class only'
      raise UserError(
        f'the data has {has}, and {where}.loss={self.loss} needs two or more; choose other data, '
        f'other config.data.classes, or {where}.loss=squared for a target that is a number'
      )
    if self._loss.outputs(classes) == 1 and classes != 2:
      raise UserError(
        f'{where}.loss={self.loss} tells two classes apart and the data has {classes}; choose two '
        'with --config.data.classes=3,5, or --config.objective.loss=softmax'
      )
    if self.class_weights and not any(self.class_weights):
      raise UserError(
        f'{where}.class_weights is 0 for every class, so that nothing is learned; give some class '
        'a weight above 0, or leave it empty'
      )
    if self.class_weights and len(self.class_weights) != classes:
      raise UserError(
        f'{where}.class_weights has {len(self.class_weights)} entries, the data {classes} classes'
      )

  @property
  def players(self) -> tuple[Player, ...]:
    return (Player('model', ('model',), self._train_loss),)

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    if self.input not in batch:
      raise UserError(
        f'the data has no "{self.input}", only {", ".join(sorted(batch))}; set '
        'config.objective.input'
      )
    target = 'label' if self._classes else 'target'
    if target not in batch:
      raise UserError(
        f'config.objective.loss={self.loss} learns a "{target}", and the data has only '
        f'{", ".join(sorted(batch))}; choose another loss or other data'
      )
    outputs = (1, self._loss.outputs(self.num_classes))
    return {'model': self._initialised('model', key, batch[self.input][:1], outputs=outputs)}

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Loss and accuracy (classes), prediction and probability of each example.

    The loss is the bare one, without smoothing and weights, so that figures of runs compare.
    """
    del keys
    return self._figures(self._apply(variables['model'], batch, train=False), batch)

  @property
  def measurements(self) -> Mapping[str, Measurement]:
    if self.input != 'image':
      return {}
    options = {
      'mirror': Option(bool, False, 'Whether each view is mirrored left to right too.'),
      'shift': Option(int, 0, 'Pixels to move up, down, left and right; 0 is none.', low=0),
    }
    return {'views': Measurement(self._measure_views, options)}

  def _measure_views(
    self, variables: Variables, batch: Batch, keys: jax.Array, mirror: bool, shift: int
  ) -> dict[str, jax.Array]:
    """`loss` and `accuracy` of outputs averaged over several views of an image.

    Views as in Krizhevsky et al. 2012, section 4.1, but of the outputs before the softmax.
    """
    del keys
    views = views_of(batch['image'], mirror=mirror, shift=shift)
    apply = lambda image: self._apply(variables['model'], {'image': image}, train=False)  # noqa: E731
    figures = self._figures(jax.lax.map(apply, views).mean(axis=0), batch)
    return {name: figures[name] for name in ('loss', 'accuracy') if name in figures}

  def _figures(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Figures and predictions of each example, given the model's outputs [B, outputs]."""
    prediction = self._loss.predict(outputs)
    probability = self._loss.probability
    if probability is None:
      return {'loss': self._loss.loss(outputs, batch['target']), 'prediction': prediction}
    return {
      'loss': self._loss.loss(outputs, jax.nn.one_hot(batch['label'], self.num_classes)),
      'accuracy': (prediction == batch['label']).astype(jnp.float32),
      'prediction': prediction,
      'probability': probability(outputs),
    }

  @property
  def pictures(self) -> Mapping[str, Picture]:
    scores = self._loss.scores
    if self.input != 'image' or scores is None:
      return {}
    render = functools.partial(self._explanations, scores)
    captions = Captions(_EXPLANATIONS, self._predictions, _name_prediction)
    return {'explain': Picture(render, 8, 'test images', examples=1, captions=captions)}

  # --- predictions

  @property
  def predictor(self) -> Predictor:
    if not self._classes:
      return Predictor(self.input, self._predict, _conclude_value, _value_rows)
    options = {'top': top_option(3, 'classes')}
    return Predictor(self.input, self._predict, conclude_class, _class_rows, options)

  def _predict(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """`probability` [B, K] of the classes, or the `value` [B] of a regression."""
    del keys
    outputs = self._apply(variables['model'], batch, train=False)
    if self._loss.probability is None:
      return {'value': self._loss.predict(outputs)[:, 0]}
    return {'probability': self._loss.probability(outputs)}

  # --- training

  def _train_loss(self, params, mutable, batch: Batch, context: Context):
    outputs, changed = self._apply(
      {'params': params['model'], **mutable['model']},
      batch,
      train=True,
      mutable=list(mutable['model']),
      rngs=dict(context.rngs),
    )
    losses = self._loss.loss(outputs, self._target(batch))
    if self.class_weights:
      losses *= jnp.asarray(self.class_weights)[batch['label']]
    metrics = {}
    if self._classes:
      metrics['accuracy'] = (self._loss.predict(outputs) == batch['label']).mean()
    return losses.mean(), Aux(metrics, {'model': changed})

  def _target(self, batch: Batch) -> jax.Array:
    """The target of the loss: [B, K] shares of the classes, or [B] values."""
    if not self._classes:
      return batch['target']
    target = self._smoothed(batch['label'])
    if 'mixed_label' not in batch:
      return target
    other = self._smoothed(batch['mixed_label'])
    share = batch['mixed_share'][:, None]
    return (1 - share) * target + share * other

  def _smoothed(self, label: jax.Array) -> jax.Array:
    """Labels int32 [B] as distributions [B, K], smoothed (Szegedy et al. 2016, section 7)."""
    one_hot = jax.nn.one_hot(label, self.num_classes)
    return optax.losses.smooth_labels(one_hot, self.label_smoothing)

  # --- small parts

  @property
  def _loss(self) -> classification.Loss:
    return pick(classification, self.loss, 'config.objective.loss')

  @property
  def _classes(self) -> bool:
    return self._loss.scores is not None

  def _apply(self, variables: Variables, batch: Batch, **options):
    """Applies the module to its input in a batch; `options` are those of linen's `apply`."""
    return self.modules['model'].apply(variables, batch[self.input], **options)

  # --- pictures of test images

  def _explanations(
    self,
    scores: Callable[[jax.Array], jax.Array],
    variables: Variables,
    batch: Batch,
    keys: jax.Array,
    num: int,
  ) -> jax.Array:
    """Rows of a test image, its saliency, integrated gradients from black, and occlusion map, all
    of the logit of the class that the model predicts. The maps lie over the image in grey, for
    their colours have a meaning."""
    del keys
    images = batch['image'][:num]

    def outputs(images: jax.Array) -> jax.Array:
      return self._apply(variables['model'], {'image': images}, train=False)

    predicted = self._loss.predict(outputs(images))

    def score(images: jax.Array) -> jax.Array:
      logits = scores(outputs(images))
      return jnp.take_along_axis(logits, predicted[:, None], axis=-1)[:, 0]

    side = min(images.shape[1:3])
    maps = (
      attributions.saliency(score, images),
      attributions.integrated_gradients(
        score, images, jnp.zeros_like(images), _INTEGRATION_STEPS
      ).sum(axis=-1),
      attributions.occlusion(
        score, images, max(1, round(side * _WINDOW)), max(1, round(side * _STRIDE)), 0.5
      ),
    )
    plain = jnp.broadcast_to(images, (*images.shape[:3], 3))
    return jnp.stack([plain, *(heat_maps.overlay(images, m) for m in maps)], axis=1)

  def _predictions(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """The class that the model predicts for each image, its probability, and the true class."""
    del keys
    outputs = self._apply(variables['model'], {'image': batch['image'][:num]}, train=False)
    predicted, probability = self._loss.predict(outputs), self._loss.probability
    if probability is None:
      return {}
    share = jnp.take_along_axis(probability(outputs), predicted[:, None], axis=-1)[:, 0]
    return {'predicted': predicted, 'probability': share, 'label': batch['label'][:num]}


def _name_prediction(values: Mapping[str, Any], class_names: Sequence[str]) -> str:
  predicted, label = (class_names[values[name]] for name in ('predicted', 'label'))
  said = f'{predicted}: {values["probability"]:.3f}'
  return said if predicted == label else f'{said}\ntrue: {label}'


def _conclude_value(means: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
  del batch
  return {'prediction': means['value']}


def _value_rows(values: Mapping[str, Any], legend: Legend) -> list[Row]:
  del legend
  return [{'prediction': values['prediction']}]


def _class_rows(values: Mapping[str, Any], legend: Legend, top: int) -> list[Row]:
  return [of_classes('class', values['probability'], legend.class_names, top, legend.whole)]
