"""The formulation of an operation: part of the configuration, and of the thread that applies a model."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import Mesh
from tiny import TINY

from oneformer_jax.models import ops
from oneformer_jax.models.gpu.formulation import ops_of_gpus
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.oneformer import encode, init, predict

QUERIES, VALUES = (jax.random.normal(jax.random.key(i), (2, 3, 1, 4)) for i in range(2))


def uniform(projected: ops.Projected, *_: object) -> jax.Array:
    """Every key weighs the same."""
    query, _, value = (x.swapaxes(-3, -2) for x in ops.heads_first(projected))
    return jnp.broadcast_to(value.mean(-3, keepdims=True), query.shape)


def attended() -> jax.Array:
    return ops.attend((QUERIES, QUERIES, VALUES), Dropout(0.0, True), scale=1.0)


def test_another_formulation_is_used_within_and_in_this_thread_alone() -> None:
    usual = attended()
    with ops.using(ops.Ops(attend=uniform)), ThreadPoolExecutor(1) as another:
        np.testing.assert_allclose(attended(), jnp.broadcast_to(VALUES.mean(1, keepdims=True), (2, 3, 1, 4)), rtol=1e-6)
        np.testing.assert_array_equal(another.submit(attended).result(), usual)
    np.testing.assert_array_equal(attended(), usual)


@pytest.mark.slow
def test_the_formulation_belongs_to_the_configuration_and_to_its_compiled_programs() -> None:
    """One jitted function, given one configuration after the other, computes what each of them says."""

    @partial(jax.jit, static_argnames="config")
    def class_logits(params: Any, config: Any) -> jax.Array:
        features = encode(params, jnp.ones((1, 64, 64, 3)), config=config)
        return predict(params, features, jnp.ones((1, TINY.task_seq_len)), config=config).class_logits

    params, other = init(TINY, jax.random.key(0)), dataclasses.replace(TINY, ops=ops.Ops(attend=uniform))
    first, second, again = (class_logits(params, config) for config in (TINY, other, TINY))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)


@dataclasses.dataclass(frozen=True)
class Device:
    """One that is not here."""

    platform: str


def test_the_devices_of_a_mesh_choose_the_formulation() -> None:
    meshes = [Mesh(np.array([Device(platform)]), ("data",)) for platform in ("cpu", "gpu")]
    on_cpu, on_gpu = (TINY.on(mesh) for mesh in meshes)
    assert on_cpu is TINY
    assert on_gpu.on(meshes[0]) is on_gpu, "what was chosen stays"
    assert on_gpu.ops == ops_of_gpus(meshes[1])
    assert on_gpu == TINY.on(meshes[1]), "one key of the compiled programs"
    assert on_gpu.to_json() == TINY.to_json()


def test_attention_is_parted_by_its_logits_but_for_a_batch_of_any_size() -> None:
    (batch,) = export.symbolic_shape("B")
    with ops.using(ops.Ops()):
        assert ops.parts_of(4, 100 * batch) == 1
    with ops.using(ops.Ops(most_logits=100)):
        assert [ops.parts_of(4, logits) for logits in (100, 101, 250, 1000)] == [1, 2, 4, 4]
