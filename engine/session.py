"""A config made concrete: mesh, objective, optimizers, and the state's shape on the devices."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from data.own.options import Image, Jsonl, Table
from data.section import ALL_FOLDS, Data, open_training, open_whole
from data.spec import Spec
from data.text.options import Text
from data.transforms import check_size
from engine import host_memory, runtime, sharding
from engine.averages import Average, named_averages
from engine.build import build, call, to_plain
from engine.declarations import check_config
from engine.gradients import Strategy
from engine.init_rules import IsFrozen, Source, frozen_by, sources
from engine.lanes import Lanes, check_lanes, lanes_of_folds, lanes_of_seeds, stack_abstract
from engine.module_errors import module_errors
from engine.objective import build_objective
from engine.optimizers import Optimizer, build_optimizers, check_warmups
from engine.state import State, init_state
from engine.step import TrainStep, examples_per_step
from engine.train_options import Train, run_length, train_options
from errors import UserError
from objectives.base import Objective


class Session(NamedTuple):
  """A config made concrete; nothing is allocated yet.

  Attributes:
    config: the config this session was built from.
    train: its section.
    data: its section.
    mesh: of all devices.
    spec: of the training split.
    objective: with its modules.
    optimizers: by name.
    averages: by name.
    sources: the runs that parameters come from, by module.
    gradient: makes the gradient of an update.
    frozen: whether the parameter at a path stays as it was loaded.
    lanes: the trainings side by side.
    make_state: makes the state at step 0 of one lane from its seed.
    lane_abstract: the state of one lane as `jax.ShapeDtypeStruct`s with their shardings.
    abstract: that of all lanes; the same where there is one.
    per_step: examples that a step consumes.
  """

  config: ConfigDict
  train: Train
  data: Data
  mesh: Mesh
  spec: Spec
  objective: Objective
  optimizers: Mapping[str, Optimizer]
  averages: Mapping[str, Average]
  sources: Mapping[str, Source]
  gradient: Strategy
  frozen: IsFrozen
  lanes: Lanes
  make_state: Callable[[jax.Array], State]
  lane_abstract: State
  abstract: State
  per_step: int

  @property
  def state_shardings(self) -> State:
    """The sharding of every leaf of the state of all lanes."""
    return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

  @property
  def platform(self) -> str:
    """The platform that its programs are compiled for, e.g. 'cpu', 'gpu' or 'tpu'."""
    return self.mesh.devices.flat[0].platform

  @property
  def determinism_options(self) -> dict[str, str | bool]:
    """The compiler options that `config.train.determinism` stands for on its devices."""
    return runtime.determinism_options(self.platform, self.train.determinism)

  @property
  def replicated(self) -> NamedSharding:
    """The sharding of an array that every device holds a copy of."""
    return NamedSharding(self.mesh, PartitionSpec())

  def init(self) -> State:
    """Returns the state at step 0 of all lanes, made where it lives."""
    seeds = self.lanes.seeds

    def make() -> State:
      if self.lanes.number == 1:
        return self.make_state(jnp.uint32(seeds[0]))
      return jax.vmap(self.make_state)(jnp.asarray(seeds)).replace(step=jnp.int32(0))

    # It runs once: compiling it well would cost more than it saves.
    hurried = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else {}
    options = {**hurried, **self.determinism_options}
    return jax.jit(make, out_shardings=self.state_shardings, compiler_options=options)()

  def module_errors(self) -> AbstractContextManager[None]:
    """Within it, an error that a module is the cause of is a UserError that names the module."""
    return module_errors(self.objective.modules, to_plain(self.config.modules))

  def train_step(self) -> TrainStep:
    """Returns the function that takes one step of one lane."""
    return TrainStep(
      self.objective,
      self.optimizers,
      self.averages,
      self.gradient,
      self.frozen,
      self.data.batch_size,
      self.train.accumulate,
      functools.partial(sharding.gather, rules=to_plain(self.config.sharding), mesh=self.mesh),
    )


def open_session(
  config: ConfigDict,
  spec: Spec | None = None,
  tokenizer: str = '',
  devices: Sequence[jax.Device] | None = None,
) -> Session:
  """Makes a config concrete.

  Args:
    config: the experiment.
    spec: of the training split; looked up by its name if not given.
    tokenizer: JSON of a tokenizer to read the split with; '' to make it from the config.
    devices: those of the mesh, or descriptions of devices that programs can be compiled for; None
      for all that jax finds here.

  Raises:
    UserError: the config asks for something that cannot be.
  """
  check_config(config)
  train, data = train_options(config), data_options(config)
  check_warmups(to_plain(config.optimizer), train.steps, f' (config.train.steps={train.steps})')
  lanes = _lanes(config.seeds, train.seed, data, trained=spec is not None)
  mesh = sharding.make_mesh(**to_plain(config.mesh), devices=devices)
  check_lanes(lanes, mesh)
  sharding.check_batch(data.batch_size, train.accumulate, mesh)
  spec = spec or open_training(data, tokenizer).spec
  check_size(data.augment, spec.features.get('image', (None,))[0])
  objective = build_objective(config, spec, train.precision, mesh)
  per_step = examples_per_step(objective, data.batch_size)
  steps = run_length(train, spec.n, per_step)
  if steps < train.steps:
    why = (
      f', which is config.train.epochs={train.epochs} of {spec.n:,} examples in batches of '
      f'config.data.batch_size={data.batch_size}'
    )
    check_warmups(to_plain(config.optimizer), steps, why)
  train = dataclasses.replace(train, steps=steps)
  optimizers = build_optimizers(to_plain(config.optimizer), objective, train.steps)
  averages = named_averages(config, objective.modules)
  found = sources(config.init_from, objective.modules)
  frozen = frozen_by(found)

  @jax.jit  # Traced once: for the shapes here, and in `init`.
  def make_state(seed: jax.Array) -> State:
    return init_state(objective, optimizers, averages, seed, example_batch(spec), frozen)

  with module_errors(objective.modules, to_plain(config.modules)):
    shapes = jax.eval_shape(make_state, jnp.uint32(0))
  for name in objective.modules:
    if name not in shapes.params:
      raise UserError(
        f'config.modules.{name} has no effect: config.objective.name={config.objective.name} uses '
        f'{", ".join(shapes.params)} alone; remove it'
      )
  modules = {name: average.module for name, average in averages.items()}
  places = sharding.state_shardings(shapes, modules, to_plain(config.sharding), mesh)
  host_memory.check_offload(optimizers, mesh.devices.flat[0], lanes.number)
  places = places.replace(
    opt_state=host_memory.placed(places.opt_state, shapes.opt_state, optimizers)
  )
  abstract = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
  )
  stacked = stack_abstract(abstract, lanes.number, mesh) if lanes.number > 1 else abstract
  return Session(
    config,
    train,
    data,
    mesh,
    spec,
    objective,
    optimizers,
    averages,
    found,
    _gradient(train.gradient),
    frozen,
    lanes,
    make_state,
    abstract,
    stacked,
    per_step,
  )


def _gradient(section: Mapping[str, Any]) -> Strategy:
  """Builds the strategy that `config.train.gradient` names."""
  where = 'config.train.gradient'
  return build(section, 'engine', where)


def _lanes(seeds: int, seed: int, data: Data, trained: bool) -> Lanes:
  """The lanes of a run; after its training the examples of the folds are not looked up."""
  if data.fold != ALL_FOLDS:
    return lanes_of_seeds(seed, seeds)
  if data.folds < 2 or seeds != 1 or data.text:
    raise UserError(
      f'config.data.fold={ALL_FOLDS} trains every fold as a lane: give config.data.folds of 2 or '
      'more, leave config.seeds at 1, and train folds of text one by one'
    )
  return lanes_of_folds(seed, data.folds, None if trained else open_whole(data).spec.n)


# The sections of `config.data` for files of one's own.
OWN_SECTIONS: Mapping[str, type] = {'image': Image, 'table': Table, 'jsonl': Jsonl}


def data_options(config: ConfigDict) -> Data:
  """Returns the section `config.data`, with the options of text where it has them."""
  data: Data = call(Data, to_plain(config.data), 'config.data')
  if data.fold > 0 and not data.folds:
    raise UserError(
      f'config.data.fold={data.fold} has no effect without folds; give their number with '
      '--config.data.folds, or leave it at 0'
    )
  if data.folds and data.test_name:
    raise UserError(
      f'config.data.test_name={data.test_name} has no effect with config.data.folds={data.folds}: '
      'the fold that is held out is evaluated on; leave it empty'
    )
  given = to_plain(config.data.text)
  # {} stands for no text.
  text = None if given == {} else call(Text, given, 'config.data.text')
  own = {
    key: call(section, to_plain(config.data[key]), f'config.data.{key}')
    for key, section in OWN_SECTIONS.items()
    if key in config.data
  }
  data = dataclasses.replace(data, text=text, **own)
  data.check_own()
  return data


def example_batch(spec: Spec) -> dict[str, jax.Array]:
  """A batch of one blank example as the objective sees it: images float32, integers int32."""
  return {
    name: jnp.zeros((1, *shape), jnp.float32 if dtype == 'uint8' else dtype)
    for name, (shape, dtype) in spec.features.items()
  }
