"""One Optax chain: clipping, AdamW or Muon, parameter groups by name rules, the learning rate over the steps; the
moving average of what it trains; and what being frozen means for parameters.

The groups are those of the original: backbone and queries learn at a multiple of the learning rate; normalisation
layers, embeddings and position tables are not decayed. A frozen parameter has no gradient, no decay and no
optimizer state; what is frozen runs as in evaluation, without dropout and drop path.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.muon import is_matrix, scale_by_muon

Names = frozenset[str]
"""Slash-joined names of parameters."""

# What may learn at a multiple of the learning rate.
OWN_RATE = re.compile(r"^(?P<backbone>backbone)/|/(?P<queries>query_embed)$")
# Normalisation layers (scale and bias), layer scales, learned embeddings, position tables.
NO_DECAY = re.compile(
    r"norm[^/]*/(scale|bias)$|/(layer_scale[12]?|relative_position_bias|absolute_pos_embed|position_embed|positional_embedding)$"
    r"|/(query_embed|level_embed|token_embedding)$|^(prompt_ctx|logit_scale)$"
)


LARGE, ROWS, JOINED = 65536, 2048, 64
"""Of the norm on GPUs: the entries of a large leaf, its rows, and how many arrays are joined; one kernel of XLA reads
less than 100."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for matrices and AdamW for all else, with gradient clipping.

    `clip_value` 0 switches clipping off; `momentum` is AdamW's first moment decay. `muon_rms`: the root mean square of
    an update of a matrix by Muon at a learning rate of 1; AdamW's is about 0.2.
    """

    weight_decay: float = 0.05
    momentum: float = 0.9
    backbone_multiplier: float = 0.1
    query_multiplier: float = 1.0
    clip_type: Literal["full_model", "value"] = "full_model"
    clip_value: float = 1.0
    clip_norm_type: float = 2.0
    type: Literal["AdamW", "Muon"] = "AdamW"
    muon_rms: float = 1.6


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over a training whose length is not known yet: `lr` at its largest, times a linear warm-up from
    `warmup_factor` to 1 over `warmup_iters` steps, times the decay.

    The decay of `Warmuppoly` is (1 - step / (total_steps + 1)) ** 0.9; `MultiStep` multiplies by `gamma` at each of
    `decay_steps`, or of `decay_epochs` where these are given.
    """

    lr: float = 1e-5
    kind: Literal["Warmuppoly", "MultiStep"] = "Warmuppoly"
    warmup_iters: int = 1000
    warmup_factor: float = 0.001
    gamma: float = 0.1
    decay_steps: tuple[int, ...] = (327778, 355092)
    decay_epochs: tuple[int, ...] | None = None

    def decays(self, steps_per_epoch: int) -> tuple[int, ...]:
        """The steps at which `MultiStep` decays."""
        if self.decay_epochs is None:
            return self.decay_steps
        return tuple(epoch * steps_per_epoch for epoch in self.decay_epochs)

    def build(self, total_steps: int, steps_per_epoch: int, shift: float = 0.0) -> optax.Schedule:
        """The learning rate of a training of this length as a function of the step. `shift`: the updates of a run that
        has changed its length before which this one would have begun (see `training.loop.LoopSettings`)."""
        decays = sorted(self.decays(steps_per_epoch))

        def schedule(count: int | Int[Array, ""]) -> Float[Array, ""]:
            step = jnp.asarray(count, float) - shift
            if self.kind == "MultiStep":
                reached = jnp.sum(jnp.asarray(decays, float) <= step) if decays else jnp.zeros(())
                return self.lr * self._warmup(step) * self.gamma**reached
            # The one step beyond the end keeps the last update above zero, as the reference does.
            decay = jnp.maximum(1.0 - step / (total_steps + 1), 0.0) ** 0.9
            return self.lr * self._warmup(step) * decay

        return schedule

    def _warmup(self, step: Float[Array, ""]) -> Float[Array, ""]:
        if self.warmup_iters <= 0:
            return jnp.ones_like(step)
        progress = jnp.minimum(step / self.warmup_iters, 1.0)
        return self.warmup_factor * (1.0 - progress) + progress


def parameter_names(params: PyTree) -> PyTree[str]:
    """A tree like `params` whose leaves are slash-joined parameter names."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(key.key) for key in path), params)


def matching(rule: re.Pattern[str], *, invert: bool = False) -> Callable[[PyTree], PyTree[bool]]:
    """A mask function for Optax: True where the parameter's name matches (does not match) the rule."""
    return lambda params: jax.tree.map(lambda name: bool(rule.search(name)) != invert, parameter_names(params))


def global_norm(tree: PyTree, norm_type: float = 2.0, *, whole: bool = False) -> Float[Array, ""]:
    """The p-norm over all entries of all leaves; p may be infinite. `whole`: no leaf is split over devices."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    if norm_type == 2.0:
        on_gpus = _norm_of_rows if whole else _norm_of_leaves
        return lax.platform_dependent(*leaves, cpu=_norm_of_leaves, default=on_gpus)
    if norm_type == float("inf"):
        return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    return sum(jnp.sum(jnp.abs(leaf) ** norm_type) for leaf in leaves) ** (1.0 / norm_type)


def _norm_of_leaves(*leaves: Float[Array, "..."]) -> Float[Array, ""]:
    return optax.tree.norm(leaves)


def _norm_of_rows(*leaves: Float[Array, "..."]) -> Float[Array, ""]:
    """The 2-norm, in a kernel for many leaves: as the norm of the norms of the rows of large ones, whose rows are
    joined where they are equally long, and of what is small. A sum over a whole leaf is two kernels on GPUs, however
    small it is."""
    small: list[Array] = []
    rows_of_length: dict[int, list[Array]] = {}
    for leaf in leaves:
        if leaf.size < LARGE:
            small.append(leaf.reshape(-1))
        else:
            rows = leaf.reshape(math.gcd(leaf.size, ROWS), -1)
            rows_of_length.setdefault(rows.shape[1], []).append(rows)
    large = [jnp.linalg.norm(rows, axis=1) for equal in rows_of_length.values() for rows in _joined(equal)]
    return optax.tree.norm(_joined(small + large))


def _joined(arrays: list[Array]) -> list[Array]:
    return [jnp.concatenate(arrays[start : start + JOINED]) for start in range(0, len(arrays), JOINED)]


def _clip_by_norm(max_norm: float, norm_type: float) -> optax.GradientTransformation:
    def update(
        updates: Params,
        state: optax.EmptyState,
        _: Params | None = None,
        *,
        gradient_norm: Float[Array, ""] | None = None,
        **__: Any,
    ) -> tuple[Params, optax.EmptyState]:
        if gradient_norm is None or norm_type != 2.0:
            gradient_norm = global_norm(updates, norm_type)
        scale = jnp.minimum(1.0, max_norm / (gradient_norm + 1e-6))
        return jax.tree.map(lambda u: u * scale, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, *, frozen: Names = frozenset()
) -> optax.GradientTransformation:
    """The chain of one run; its state is initialised from the parameters as usual. `frozen` are parameter names.

    Its `update` takes the `step` whose learning rate it is made at: where updates are left out, the schedule goes on
    all the same. Without one it counts its updates. It takes the 2-norm of the gradients, `gradient_norm`, too, from
    whoever has it.
    """
    clip = optax.identity()
    if config.clip_value > 0:
        by_norm = _clip_by_norm(config.clip_value, config.clip_norm_type)
        clip = by_norm if config.clip_type == "full_model" else optax.clip(config.clip_value)
    chain = optax.chain(
        clip,
        _directions(config),
        optax.add_decayed_weights(config.weight_decay, mask=matching(NO_DECAY, invert=True)),
        optax.masked(_scale_rates(config), matching(OWN_RATE)),
        _scale_by(schedule),
    )
    if not frozen:
        return chain
    return optax.partition(
        {"trained": chain, "frozen": optax.set_to_zero()},
        lambda params: jax.tree.map(lambda name: "frozen" if name in frozen else "trained", parameter_names(params)),
    )


def _directions(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients -> updates at a learning rate of 1."""
    adam = optax.scale_by_adam(b1=config.momentum, b2=0.999, eps=1e-8)
    if config.type == "AdamW":
        return adam

    def kinds(params: Params) -> PyTree[str]:
        names = parameter_names(params)
        return jax.tree.map(lambda name, leaf: "muon" if is_matrix(name, leaf.shape) else "adam", names, params)

    return optax.partition({"muon": scale_by_muon(config.muon_rms), "adam": adam}, kinds)


def _multiplier(name: str, config: OptimizerConfig) -> float:
    match = OWN_RATE.search(name)
    if match is None:
        return 1.0
    return config.backbone_multiplier if match["backbone"] else config.query_multiplier


def _scale_rates(config: OptimizerConfig) -> optax.GradientTransformation:
    def update(updates: Params, _: Params | None) -> Params:
        return jax.tree.map(lambda name, u: _multiplier(name, config) * u, parameter_names(updates), updates)

    return optax.stateless(update)


def _scale_by(schedule: optax.Schedule) -> optax.GradientTransformation:
    def init(_: Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(
        updates: Params,
        state: optax.ScaleByScheduleState,
        _: Params | None = None,
        *,
        step: Int[Array, ""] | None = None,
        **__: Any,
    ) -> tuple[Params, optax.ScaleByScheduleState]:
        count = state.count if step is None else step
        rate = schedule(count)
        return jax.tree.map(lambda u: -rate * u, updates), optax.ScaleByScheduleState(count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


class ParameterGroup(NamedTuple):
    """Parameters that are updated alike: `lr` times the schedule, 0 where frozen."""

    part: str
    lr: float
    weight_decay: float
    arrays: int
    parameters: int


def parameter_groups(params: Params, config: OptimizerConfig, frozen: Names) -> list[ParameterGroup]:
    """How `make_optimizer` treats every top-level part of the model, in the order of their names."""
    sizes: dict[tuple[str, float, float], list[int]] = {}
    names = jax.tree.leaves(parameter_names(params))
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        decay = 0.0 if NO_DECAY.search(name) else config.weight_decay
        treatment = (0.0, 0.0) if name in frozen else (_multiplier(name, config), decay)
        sizes.setdefault((name.split("/")[0], *treatment), []).append(leaf.size)
    return [ParameterGroup(*key, len(found), sum(found)) for key, found in sorted(sizes.items())]


def averaged(average: Params, params: Params, updates: Int[Array, ""], decay: float) -> Params:
    """The exponential moving average of the parameters, which is validated and used in their place, after one more
    update.

    After n updates the decay is at most (1 + n) / (10 + n): the random parameters of the start are soon forgotten.
    """
    share = jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    return jax.tree.map(lambda mean, new: mean + (1.0 - share) * (new - mean), average, params)


def without_gradient(params: Params, frozen: Names) -> Params:
    """`params`, through whose frozen ones no gradient flows."""
    return jax.tree.map(
        lambda name, leaf: lax.stop_gradient(leaf) if name in frozen else leaf, parameter_names(params), params
    )


def in_evaluation_mode(config: OneFormerConfig, shapes: Params, frozen: Names) -> OneFormerConfig:
    """The model to train: `config` without the dropout of its frozen parts."""
    names = jax.tree.leaves(parameter_names(shapes))

    def is_frozen(part: str) -> bool:
        return all(name in frozen for name in names if name.startswith(part))

    if is_frozen("pixel_decoder/layer_"):
        config = replace(config, pixel_decoder=replace(config.pixel_decoder, dropout=0.0))
    if is_frozen("predictor/class_transformer/"):
        config = replace(config, transformer=replace(config.transformer, dropout=0.0))
    return replace(config, backbone=config.backbone.with_frozen(lambda part: is_frozen(f"backbone/{part}")))
