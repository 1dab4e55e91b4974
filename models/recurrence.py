"""Recurrent cells, and the loop over time that differentiates into few large products.

A cell reads x, the input's share of its gates for all steps (one product before the loop), and
r = h·U, that of its last state. Differentiated as it stands, the loop would add to the gradient of
U at every step, a product of B rows; here the loop back keeps what each step passes down, and one
product of T·B rows follows it. The rules of the cells are written out, for they need less kept
than automatic ones. As with every `custom_vjp`, forward mode is not available.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

States = tuple[Array, ...]  # float32 [B, W] each; the first is h, which others see


class Cell(NamedTuple):
  """One step of a recurrent network, for W units and a batch of B.

  Attributes:
    gates: G; x and r are [B, G·W].
    states: how many arrays [B, W] it carries.
    biases: what each gate's bias starts from.
    inner: whether r of the last gate has a bias of its own, as in torch.nn.GRU.
    forward: (x, r, states) -> (states behind, saved): `saved` is what `backward` needs.
    backward: (saved, states before, states behind, their gradients) -> (d, gradients of the
      states before, but for r's part of h): d [B, D] holds the gradients of x and r.
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

  def backward(saved: Any, before: States, behind: States, gradients: States):
    del saved
    return gradients[0] * slope(behind[0]), (jnp.zeros_like(before[0]),)

  return Cell(1, 1, (0.0,), False, forward, backward, _same, _same)


def _lstm_forward(x: Array, r: Array, states: States) -> tuple[States, Any]:
  # One tanh over all gates: σ(z) = ½ + ½·tanh(z/2). Each by its own function, XLA:CPU computes them
  # again for c and for h.
  half = jnp.repeat(jnp.asarray([0.5, 0.5, 1.0, 0.5]), x.shape[-1] // 4)
  i, f, g, o = jnp.split(jnp.tanh((x + r) * half) * half + (1 - half), 4, axis=-1)
  c = f * states[1] + i * g
  return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_backward(saved: Any, before: States, behind: States, gradients: States):
  i, f, g, o = saved
  dh, dc = gradients
  t = jnp.tanh(behind[1])
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


def _gru_backward(saved: Any, before: States, behind: States, gradients: States):
  del behind
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(cell: Cell, x: Array, kernel: Array, bias: Array | None, keep: Array | None) -> Array:
  """Runs a cell from states of zeros.

  Args:
    cell: which.
    x: [T, B, G·W], the input's share of the gates.
    kernel: U [W, G·W]; its dtype is that of the products, all else is float32.
    bias: [G·W] added to h·U; None for zeros.
    keep: float32 [T, B, 1], 0 where the states start anew before a step; None for ones.

  Returns:
    h float32 [T, B, W].
  """
  return _forward(cell, x, kernel, bias, keep)[0]


def recurrent(h: Array, kernel: Array, bias: Array | None) -> Array:
  """r = h·U + b, float32 [B, G·W]."""
  r = (h.astype(kernel.dtype) @ kernel).astype(jnp.float32)
  return r if bias is None else r + bias


def zeros(cell: Cell, batch: int, width: int) -> States:
  """The states before the first step."""
  return (jnp.zeros((batch, width), jnp.float32),) * cell.states


def _forward(cell: Cell, x: Array, kernel: Array, bias: Array | None, keep: Array | None):
  def step(states: States, inputs: tuple[Array, Array | None]):
    x, keep = inputs
    states = _kept(states, keep)
    r = recurrent(states[0], kernel, bias)
    behind, saved = cell.forward(x.astype(jnp.float32), r, states)
    return behind, (behind, saved)

  start = zeros(cell, x.shape[1], kernel.shape[0])
  _, (behind, saved) = lax.scan(step, start, (x, keep))
  return behind[0], (behind, saved, kernel, bias, keep, x[:0])


def _backward(cell: Cell, residuals: Any, gradient: Array):
  behind, saved, kernel, bias, keep, x = residuals
  before = _kept(tuple(jnp.pad(s[:-1], ((1, 0), (0, 0), (0, 0))) for s in behind), keep)
  turned = kernel.T

  def step(gradients: States, inputs: Any):
    saved, before, behind, keep, gradient = inputs
    d, (dh, *rest) = cell.backward(saved, before, behind, (gradients[0] + gradient, *gradients[1:]))
    dh += (cell.of_recurrent(d).astype(kernel.dtype) @ turned).astype(jnp.float32)
    return _kept((dh, *rest), keep), d

  start = zeros(cell, behind[0].shape[1], kernel.shape[0])
  _, d = lax.scan(step, start, (saved, before, behind, keep, gradient), reverse=True)
  dr = cell.of_recurrent(d).reshape(-1, kernel.shape[1])
  h = before[0].reshape(-1, kernel.shape[0])
  dkernel = h.astype(kernel.dtype).T @ dr.astype(kernel.dtype)
  dbias = None if bias is None else dr.sum(axis=0).astype(bias.dtype)
  dkeep = None if keep is None else jnp.zeros_like(keep)
  return cell.of_input(d).astype(x.dtype), dkernel, dbias, dkeep


def _kept(states: States, keep: Array | None) -> States:
  return states if keep is None else tuple(state * keep for state in states)


recur.defvjp(_forward, _backward)
