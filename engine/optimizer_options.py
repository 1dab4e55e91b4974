"""The options of an optimizer's section: those around every optimizer, and optax's own by name."""

from collections.abc import Mapping

from options import REQUIRED, Option

SCHEDULES = ('constant', 'cosine', 'exponential', 'piecewise')

# `config.optimizer.NAME.schedule`
SCHEDULE: Mapping[str, Option] = {
  'name': Option(
    str,
    REQUIRED,
    'The rate after the warm-up: constant, a decay to `end`, or steps at `boundaries`.',
    choices=SCHEDULES,
  ),
  'warmup': Option(
    int, REQUIRED, 'Steps in which the rate rises from 0 to the highest; 0 is none.', low=0
  ),
  'end': Option(
    float,
    REQUIRED,
    'Share of the highest rate that a decay ends at; exponential needs one above 0.',
    low=0,
    high=1,
  ),
  'boundaries': Option(
    int, REQUIRED, 'Of piecewise: steps after the warm-up, ascending.', low=1, each='list'
  ),
  'factors': Option(
    float,
    REQUIRED,
    'Of piecewise: share of the highest rate from each boundary on.',
    low=0,
    each='list',
  ),
}

# What every section of `config.optimizer` has.
COMMON: Mapping[str, Option] = {
  'name': Option(str, REQUIRED, 'The optimizer: one of optax, `momentum` or `muon`.'),
  'learning_rate': Option(float, REQUIRED, 'The highest rate of the schedule.', low=0),
  # `name`, `warmup`, `end`, `boundaries`, `factors`; see `SCHEDULE`.
  'schedule': Option(Mapping, REQUIRED, 'How the rate changes over the run.'),
  'clip': Option(float, REQUIRED, 'Largest global norm of the gradient; 0 is off.', low=0),
  'weight_decay': Option(
    float,
    REQUIRED,
    'λ of ½λ‖w‖², whose gradient enters before the optimizer; decoupled where the optimizer has a '
    'weight decay of its own, such as adamw; 0 is off.',
    low=0,
  ),
  'decay_only': Option(
    str,
    REQUIRED,
    "A pattern (`re.search`) of the paths MODULE/…/NAME of the parameters that decay; '' is all.",
  ),
  'l1': Option(float, REQUIRED, 'λ of λ‖w‖₁, whose gradient enters likewise; 0 is off.', low=0),
  'clip_weights': Option(
    float,
    REQUIRED,
    'Every weight is kept in [-clip_weights, clip_weights] after each update; 0 is off.',
    low=0,
  ),
  'state_dtype': Option(
    str,
    'float32',
    'Type in which moving averages of gradients and their squares are kept between updates.',
    choices=('float32', 'bfloat16'),
  ),
  'offload': Option(
    bool,
    False,
    "Whether the state lives in the host's memory between updates, and not in the device's.",
  ),
}

# Optimizers whose state is moving averages alone, so that half precision can hold it. Others count
# what no average forgets, such as the sums of Adagrad or the first parameters of DoG, or have an
# average whose decay no option sets, such as Muon.
AVERAGING = (
  'adabelief', 'adam', 'adamax', 'adamaxw', 'adamw', 'adan', 'amsgrad', 'lamb', 'lars', 'lion',
  'momentum', 'nadam', 'nadamw', 'radam', 'rmsprop', 'sgd', 'signum',
)  # fmt: skip
# Options of those that are decays of an average.
DECAYS = ('b1', 'b2', 'b3', 'beta', 'decay', 'momentum')


def _share(doc: str) -> Option:
  return Option(float, None, doc, low=0, below=1)


def _size(doc: str) -> Option:
  return Option(float, None, doc, low=0)


def _whether(doc: str) -> Option:
  return Option(bool, None, doc)


# Options of optax's optimizers: one of a name means the same in all of them, but for those of
# `_OF_ONE`. Whatever optax takes beside these is no value that a config could give.
_BY_NAME: Mapping[str, Option] = {
  'b1': _share('Decay of the mean of gradients.'),
  'b2': _share('Decay of the mean of squared gradients.'),
  'b3': _share('Decay of a third, slower mean.'),
  'beta': _share('Decay of the momentum.'),
  'betas': Option(
    float,
    None,
    'Decays of the means of gradients and of squared gradients.',
    low=0,
    below=1,
    each='list',
  ),
  'rho': _share('Decay of the mean of squared gradients.'),
  'decay': _share('Decay of the mean of squared gradients.'),
  'decay_rate': _share('How fast the second moment forgets.'),
  'decay_offset': Option(int, None, 'Steps before which nothing decays.', low=0),
  'momentum': _share('Decay of the momentum.'),
  'nesterov': _whether("Whether the momentum is Nesterov's."),
  'eps': _size('Added to the divisor.'),
  'eps_root': _size('Added under the square root of the divisor.'),
  'eps_in_sqrt': _whether('Whether `eps` is added under the square root.'),
  'centered': _whether('Whether the squared mean of gradients is taken off their mean square.'),
  'bias_correction': _whether('Whether the means are corrected for their start at 0.'),
  'bias_correction_mu': _whether('Whether the mean of gradients is corrected for its start at 0.'),
  'bias_correction_nu': _whether('Whether the mean of squares is corrected for its start at 0.'),
  'initial_scale': _size('Where the mean of squared gradients starts.'),
  'initial_accumulator_value': _size('Where the sum of squared gradients starts.'),
  'alpha': _size('Weight of the slow mean or of the gradient beside the momentum.'),
  'threshold': _size('Length of the averaged past from which the variance is trusted.'),
  'trust_coefficient': Option(
    float, None, "Length of an update as a share of the weights' length.", above=0
  ),
  'min_norm': _size('The least norm that an update is scaled by.'),
  'min_dim_size_to_factor': Option(
    int, None, 'Side of a matrix from which its second moment is factored.', low=1
  ),
  'multiply_by_parameter_scale': _whether(
    'Whether a rate is a multiple of the size of the weights.'
  ),
  'clipping_threshold': Option(float, None, 'Largest root mean square of an update.', above=0),
  'factored': _whether('Whether the second moment of a matrix is kept by rows and columns.'),
  'weight_decay_rate': _size('Share of the weights taken off in every step, whatever the rate.'),
  'use_clipping': _whether('Whether early updates are kept small.'),
  'beta3': _share('Decay of the estimate of the distance.'),
  'estim_lr0': Option(float, None, 'First estimate of the distance to a minimum.', above=0),
  'estim_lr_coef': Option(float, None, 'Factor of that estimate.', above=0),
  'safeguard_warmup': _whether('Whether a warm-up leaves the estimate alone.'),
  'init_estim_sq_dist': Option(
    float, None, 'First estimate of the squared distance to a minimum.', above=0
  ),
}
_OF_ONE: Mapping[str, Mapping[str, Option]] = {
  'optimistic_gradient_descent': {
    'alpha': _size('Weight of the gradient.'),
    'beta': _size('Weight of the change of the gradient.'),
  },
  'optimistic_adam_v2': {
    'alpha': _size('Weight of the gradient.'),
    'beta': _size('Weight of the change of the gradient.'),
  },
  'muon': {
    'beta': _share("Decay of the momentum, which is Nesterov's."),
    'matrices': Option(
      str,
      None,
      "A pattern of the paths of what is moved as a matrix; '' is all that has two axes or more.",
    ),
    'adam_factor': Option(
      float, None, "Nadam's rate, of all other parameters, as a multiple of this one.", above=0
    ),
  },
}

# Those of optax and optax.contrib that need no more than gradients, parameters and a rate that a
# schedule may change. Left out are those that ask for the loss or its curvature in every update
# (lbfgs, momo, sophia) or for a key (noisy_sgd), that no rate moves (rprop, cocob), whose
# parameters are not the ones to evaluate (schedule_free_*), or whose state holds arrays without an
# element, which no checkpoint can (galore).
OPTAX = (
  'acprop', 'adabelief', 'adadelta', 'adafactor', 'adagrad', 'adam', 'adamax', 'adamaxw', 'adamw',
  'adan', 'ademamix', 'adopt', 'amsgrad', 'dadapt_adamw', 'dog', 'dowg', 'fromage',
  'lamb', 'lars', 'lion', 'madgrad', 'nadam', 'nadamw', 'novograd',
  'optimistic_adam_v2', 'optimistic_gradient_descent', 'prodigy', 'radam', 'rmsprop', 'sgd',
  'sign_sgd', 'signum', 'simplified_ademamix', 'sm3', 'yogi',
)  # fmt: skip


def options_by_name(name: str, parameters: Mapping[str, object]) -> dict[str, Option]:
  """Returns the options that an optimizer has beside `COMMON`.

  Args:
    name: of the optimizer.
    parameters: the defaults of all keywords that it takes, by name, REQUIRED where there is none.
  """
  known = {**_BY_NAME, **_OF_ONE.get(name, {})}
  return {
    key: known[key]._replace(default=default)
    for key, default in parameters.items()
    if key in known and key not in COMMON
  }
