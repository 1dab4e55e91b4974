"""Recurrent cells, and a loop over time whose gradient is one large product per kernel.

A cell reads x, the input's part of its gates for all steps (one product before the loop), and
r = h·U, that of its last state. Differentiated automatically, the loop would add to the gradient
of U at every step, a product of B rows; here the backward loop keeps the gradient of each step's r,
and one product of T·B rows follows it. The derivatives of the cells are written out, because they
need less kept in memory than automatic ones.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from models.kernels.linear import linear_call

States = tuple[Array, ...]  # float32 [B, W] each; the first is h, the output of a layer


class Cell(NamedTuple):
  """One step of a recurrent network, for W units and a batch of B.

  Attributes:
    gates: G; x and r are [B, G·W].
    states: how many arrays [B, W] it carries.
    biases: the initial value of each gate's bias.
    inner: whether r of the last gate has a bias of its own, as in torch.nn.GRU.
    forward: (x, r, states) -> (states after the step, saved): `saved` is what `backward` needs.
    backward: (saved, states before, states after, gradients of the states after) -> (d, gradients
      of the states before without the part that goes through r): d [B, D] holds the gradients of x
      and r. Linear in the gradients.
    of_input: d [..., D] -> the gradient of x [..., G·W].
    of_recurrent: d [..., D] -> the gradient of r [..., G·W].
  """

  gates: int
  states: int
  biases: tuple[float, ...]
  inner: bool
  forward: Callable[[Array, Array, States], tuple[States, Any]]
  backward: Callable[[Any, States, States, States], tuple[Array, States]]
  of_input: Callable[[Array], Array]
  of_recurrent: Callable[[Array], Array]


# --- cells ----------------------------------------------------------------------------------------


def _same(d: Array) -> Array:
  return d


def _elman(function: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Cell:
  """h' = φ(x + r) (Elman 1990); `slope` is φ' as a function of φ."""

  def forward(x: Array, r: Array, states: States) -> tuple[States, Any]:
    del states
    return (function(x + r),), ()

  def backward(saved: Any, before: States, after: States, gradients: States):
    del saved
    return gradients[0] * slope(after[0]), (jnp.zeros_like(before[0]),)

  return Cell(1, 1, (0.0,), False, forward, backward, _same, _same)


def _lstm_forward(x: Array, r: Array, states: States) -> tuple[States, Any]:
  # One tanh over all gates: σ(z) = ½ + ½·tanh(z/2). With one function per gate, XLA:CPU computes
  # the gates twice, for c and for h.
  half = jnp.repeat(jnp.asarray([0.5, 0.5, 1.0, 0.5]), x.shape[-1] // 4)
  i, f, g, o = jnp.split(jnp.tanh((x + r) * half) * half + (1 - half), 4, axis=-1)
  c = f * states[1] + i * g
  return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_backward(saved: Any, before: States, after: States, gradients: States):
  i, f, g, o = saved
  dh, dc = gradients
  t = jnp.tanh(after[1])
  dc += dh * o * (1 - t * t)
  d = [
    dc * g * i * (1 - i),
    dc * before[1] * f * (1 - f),
    dc * i * (1 - g * g),
    dh * t * o * (1 - o),
  ]
  return jnp.concatenate(d, axis=-1), (jnp.zeros_like(dh), dc * f)


def _gru_forward(x: Array, r: Array, states: States) -> tuple[States, Any]:
  (h,) = states
  (a, b, c), (ra, rb, q) = jnp.split(x, 3, axis=-1), jnp.split(r, 3, axis=-1)
  reset, update = jax.nn.sigmoid(a + ra), jax.nn.sigmoid(b + rb)
  new = jnp.tanh(c + reset * q)
  return (new + update * (h - new),), (reset, update, new, q)


def _gru_backward(saved: Any, before: States, after: States, gradients: States):
  del after
  reset, update, new, q = saved
  (h,), (dh,) = before, gradients
  dn = dh * (1 - update) * (1 - new * new)
  dz = dh * (h - new) * update * (1 - update)
  dr = dn * q * reset * (1 - reset)
  return jnp.concatenate([dr, dz, dn, dn * reset], axis=-1), (dh * update,)


def _gru_input(d: Array) -> Array:
  return d[..., : d.shape[-1] // 4 * 3]


def _gru_recurrent(d: Array) -> Array:
  width = d.shape[-1] // 4
  return jnp.concatenate([d[..., : 2 * width], d[..., 3 * width :]], axis=-1)


CELLS = {
  'tanh': _elman(jnp.tanh, lambda h: 1 - h * h),
  'sigmoid': _elman(jax.nn.sigmoid, lambda h: h * (1 - h)),
  # Cho et al. 2014 as torch.nn.GRU has it: gates r, z, n; n = tanh(xₙ + r·(h·Uₙ + bₙ)),
  # h' = (1 − z)·n + z·h.
  'gru': Cell(3, 1, (0.0,) * 3, True, _gru_forward, _gru_backward, _gru_input, _gru_recurrent),
  # Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, as torch.nn.LSTM:
  # gates i, f, g, o; c' = f·c + i·g, h' = o·tanh(c'). It starts by remembering (Jozefowicz et al.
  # 2015): the forget gate's bias is 1.
  'lstm': Cell(4, 2, (0.0, 1.0, 0.0, 0.0), False, _lstm_forward, _lstm_backward, _same, _same),
}


# --- over time ------------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def recur(cell: Cell, x: Array, kernel: Array, bias: Array | None, keep: Array | None) -> Array:
  """Runs a cell over T steps, from states of zeros.

  Args:
    cell: the equations of a step.
    x: [T, B, G·W], the input's part of the gates.
    kernel: U [W, G·W]; its dtype is that of the products, all else is float32.
    bias: [G·W] added to h·U; None for zeros.
    keep: float32 [T, B, 1], 0 where the states start anew before a step; None for ones. It has no
      derivative.

  Returns:
    h float32 [T, B, W].
  """
  return _forward(cell, x, kernel, bias, keep)[0]


def recurrent(h: Array, kernel: Array, bias: Array | None) -> Array:
  """Returns r = h·U + b, float32 [B, G·W]."""
  r = (h.astype(kernel.dtype) @ kernel).astype(jnp.float32)
  return r if bias is None else r + bias


def zeros(cell: Cell, batch: int, width: int) -> States:
  """Returns the states before the first step."""
  return (jnp.zeros((batch, width), jnp.float32),) * cell.states


def _forward(cell: Cell, x: Array, kernel: Array, bias: Array | None, keep: Array | None):
  """Returns h, and of every step the states after it and what the cell saved."""

  def step(states: States, inputs: tuple[Array, Array | None]):
    x, keep = inputs
    states = _kept(states, keep)
    r = recurrent(states[0], kernel, bias)
    after, saved = cell.forward(x.astype(jnp.float32), r, states)
    return after, (after, saved)

  start = zeros(cell, x.shape[1], kernel.shape[0])
  _, (after, saved) = lax.scan(step, start, (x, keep))
  return after[0], after, saved


@recur.defjvp
def _differentiate(cell: Cell, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  x, kernel, bias, keep = primals
  h, after, saved = _forward(cell, x, kernel, bias, keep)
  dh = linear_call(
    functools.partial(_tangent, cell),
    functools.partial(_cotangents, cell, x.dtype, bias is not None),
    (after, saved, kernel, keep),
    tangents[:3],
  )
  return h, dh


def _tangent(cell: Cell, residuals: Any, operands: Any) -> Array:
  """Forward mode: the tangent of h [T, B, W], from those of x, the kernel and the bias.

  The tangent of a step is the transpose of its written-out gradient.
  """
  after, saved, kernel, keep = residuals
  dx, dkernel, dbias = operands
  before = _before(after, keep)
  # What the kernel's tangent adds at all steps, in one product.
  dr = recurrent(before[0].reshape(-1, kernel.shape[0]), dkernel, dbias)

  def step(states: States, inputs: Any):
    saved, before, after, keep, dx, dr = inputs

    def pull(gradients: States) -> tuple[Array, Array, States]:
      d, moved = cell.backward(saved, before, after, gradients)
      return cell.of_input(d), cell.of_recurrent(d), moved

    states = _kept(states, keep)
    dr += recurrent(states[0], kernel, None)
    (states,) = jax.linear_transpose(pull, after)((dx, dr, states))
    return states, states[0]

  start = zeros(cell, dx.shape[1], kernel.shape[0])
  inputs = (saved, before, after, keep, dx.astype(jnp.float32), dr.reshape(dx.shape))
  return lax.scan(step, start, inputs)[1]


def _cotangents(cell: Cell, dtype: jnp.dtype, has_bias: bool, residuals: Any, gradient: Array):
  """Reverse mode: the gradients of x in `dtype`, the kernel and the bias, from that of h."""
  after, saved, kernel, keep = residuals
  before = _before(after, keep)
  transposed = kernel.T

  def step(gradients: States, inputs: Any):
    saved, before, after, keep, gradient = inputs
    d, (dh, *rest) = cell.backward(saved, before, after, (gradients[0] + gradient, *gradients[1:]))
    dh += (cell.of_recurrent(d).astype(kernel.dtype) @ transposed).astype(jnp.float32)
    return _kept((dh, *rest), keep), d

  start = zeros(cell, gradient.shape[1], kernel.shape[0])
  _, d = lax.scan(step, start, (saved, before, after, keep, gradient), reverse=True)
  dr = cell.of_recurrent(d).reshape(-1, kernel.shape[1])
  h = before[0].reshape(-1, kernel.shape[0])
  dkernel = h.astype(kernel.dtype).T @ dr.astype(kernel.dtype)
  return cell.of_input(d).astype(dtype), dkernel, dr.sum(axis=0) if has_bias else None


def _before(after: States, keep: Array | None) -> States:
  """The states before every step, from those after it; all [T, B, W]."""
  return _kept(tuple(jnp.pad(s[:-1], ((1, 0), (0, 0), (0, 0))) for s in after), keep)


def _kept(states: States, keep: Array | None) -> States:
  return states if keep is None else tuple(state * keep for state in states)
