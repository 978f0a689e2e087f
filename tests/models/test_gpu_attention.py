"""The kernels of attention for GPUs, interpreted: values and all gradients against PyTorch."""

import os
import subprocess
import sys
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh

from oneformer_jax.models.gpu import attention_problem
from oneformer_jax.models.gpu.attention import KernelAttention
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.ops import CPU

pytestmark = pytest.mark.slow

KERNELS = KernelAttention(Mesh(np.array(jax.devices()[:1]), ("data",)), interpret=True)


class Case(NamedTuple):
    """Sizes of a call of attention; `lead` are images and their windows. `blocked`: shape of the groups of the mask.
    `packed`: queries, keys and values are one array."""

    lead: tuple[int, ...]
    queries: int
    keys: int
    heads: int
    width: int
    bias: bool = False
    blocked: tuple[int, ...] = ()
    packed: bool = False
    rate: float = 0.0


MANY_KEYS = Case((2,), 5, 150, 2, 16, blocked=(2,))
WIDE = Case((1,), 9, 9, 1, 72, packed=True)
WINDOWS = Case((2, 3), 49, 49, 2, 32, bias=True, blocked=(1, 3), packed=True)


class Attention(nn.Module):
    """An operation in a module, which has the stream that dropout draws from."""

    attend: Any
    rate: float

    @nn.compact
    def __call__(self, *inputs: Any, **arguments: Any) -> jax.Array:
        *projected, bias = inputs
        arrays = jnp.stack(projected, axis=-3) if arguments["packed"] else tuple(projected)
        return self.attend(arrays, Dropout(self.rate, False), 0.3, bias, arguments["blocked"])


def inputs_of(case: Case, dtype: Any = np.float32) -> tuple[list[Any], Any]:
    """Queries, keys, values and bias; which pairs are blocked, and never a whole row."""
    rng = np.random.default_rng(0)
    sizes = [(*case.lead, tokens, case.heads, case.width) for tokens in (case.queries, case.keys, case.keys)]
    arrays: list[Any] = [jnp.asarray(rng.normal(size=size), dtype) for size in sizes]
    bias = rng.normal(size=(case.heads, case.queries, case.keys)).astype(np.float32)
    blocked = rng.random((*case.blocked, case.queries, case.keys)) < 0.5
    blocked[..., 3] = False
    return [*arrays, bias if case.bias else None], blocked if case.blocked else None


def computed(attend: Any, case: Case, arrays: list[Any], blocked: Any) -> list[np.ndarray]:
    """The means and the gradients of a function of them."""

    def run(*arrays: Any) -> jax.Array:
        module, rngs = Attention(attend, case.rate), {"dropout": jax.random.key(1)}
        return module.apply({}, *arrays, blocked=blocked, packed=case.packed, rngs=rngs)

    def both(*arrays: Any) -> Any:
        means, pullback = jax.vjp(run, *arrays)
        return means, *pullback(jnp.cos(means))

    return [np.asarray(x, np.float32) for x in jax.jit(both)(*arrays) if x is not None]


def computed_by_torch(case: Case, arrays: list[Any], blocked: Any) -> list[np.ndarray]:
    """The same in float64."""
    tensors = [torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in arrays if x is not None]
    query, key, value = (x.transpose(-3, -2) for x in tensors[:3])
    hidden = np.zeros((case.queries, case.keys), bool) if blocked is None else blocked[..., None, :, :]
    mask = torch.tensor(np.where(hidden, -np.inf, 0.0))
    mask = mask + (tensors[3] if case.bias else 0)
    means = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3).transpose(-3, -2)
    torch.autograd.backward(means, means.detach().cos())
    return [means.detach().numpy(), *(x.grad.numpy() for x in tensors if x.grad is not None)]


@pytest.mark.parametrize("programs", [1, 512], ids=lambda n: f"{n} programs are enough")
@pytest.mark.parametrize("case", [MANY_KEYS, WINDOWS, WIDE], ids=["many keys", "windows", "filled up"])
def test_kernels_equal_pytorch(case: Case, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sums over keys are split and each program has one tile, and where a program has all tiles."""
    monkeypatch.setattr(attention_problem, "ENOUGH_PROGRAMS", programs)
    inputs = inputs_of(case)
    expected = computed_by_torch(case, *inputs)
    for attend in (KERNELS, CPU.attend) if programs == 1 else (KERNELS,):
        found = computed(attend, case, *inputs)
        assert len(found) == 4 + case.bias
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_dropout_drops_what_the_other_formulation_drops() -> None:
    """The same words, of which the kernels for the backward pass draw theirs again."""
    case = MANY_KEYS._replace(rate=0.4)
    inputs = inputs_of(case)
    for a, b in zip(computed(KERNELS, case, *inputs), computed(CPU.attend, case, *inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_products_of_halves_stay_near_those_of_float32() -> None:
    case = Case((1,), 20, 70, 1, 16)
    inputs = inputs_of(case, jnp.bfloat16)
    for a, b in zip(computed(KERNELS, case, *inputs), computed_by_torch(case, *inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())


@pytest.mark.parametrize(
    ("attend", "keys"),
    [pytest.param(CPU.attend, 2**18, id="plain"), pytest.param(KERNELS, 2**14, id="kernels", marks=pytest.mark.prove)],
)
def test_float16_holds_the_sums_of_a_whole_map(attend: Any, keys: int) -> None:
    """All keys weigh the same: the mean is that of the values, and each value's gradient its share of the cotangent.

    A map of an image of 2048 by 2048 has 2^18 keys; float16 ends at 2^16.
    """
    zeros, values = jnp.zeros((1, keys, 1, 16), jnp.float16), jnp.full((1, keys, 1, 16), 40, jnp.float16)

    @jax.jit
    def run(query: jax.Array, value: jax.Array) -> Any:
        def mean(query: jax.Array, value: jax.Array) -> jax.Array:
            return attend((query, zeros, value), Dropout(0.0, True), 1.0, None, None)

        means, pullback = jax.vjp(mean, query, value)
        return means, pullback(jnp.full(means.shape, 64, means.dtype))

    means, (of_query, of_value) = run(jnp.zeros((1, 1, 1, 16), jnp.float16), values)
    np.testing.assert_allclose(means.astype(np.float32), 40, rtol=2**-10)
    np.testing.assert_array_equal(of_query, 0)
    np.testing.assert_allclose(of_value.astype(np.float32), 64 / keys, rtol=2**-10)


def test_what_the_kernels_are_not_made_for_is_computed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    case = Case((1,), 5, 7, 2, 24)
    inputs = inputs_of(case)
    for a, b in zip(computed(KERNELS, case, *inputs), computed(CPU.attend, case, *inputs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "heads have 24 channels, not 16, 32, 64, 128" in caplog.text


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from test_gpu_attention import WINDOWS, Attention, KernelAttention, computed, inputs_of
mesh = jax.make_mesh((2,), ("data",))
case = WINDOWS._replace(rate=0.2)
arrays, blocked = inputs_of(case)
expected = computed(KernelAttention(jax.make_mesh((1,), ("data",)), True), case, arrays, blocked)
split = NamedSharding(mesh, PartitionSpec("data"))
placed = [*(jax.device_put(x, split) for x in arrays[:3]), arrays[3]]
for a, b in zip(computed(KernelAttention(mesh, True), case, placed, blocked), expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
attention = Attention(KernelAttention(mesh, True), 0.2)
forward = lambda *x: attention.apply({}, *x, blocked=blocked, packed=case.packed, rngs={"dropout": jax.random.key(1)})
text = jax.jit(forward).lower(*placed).compile().as_text()
assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute")), text
print("local")
"""


@pytest.mark.prove
def test_each_device_computes_its_images() -> None:
    """Two devices drop what one would, and send nothing but the gradient of the bias: in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "local", done.stderr
