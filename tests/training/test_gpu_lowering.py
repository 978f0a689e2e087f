"""What a GPU gets, as far as no compiler for it is needed: the programs of a training step, lowered for CUDA.

`make gpu-program` compiles them; here nothing is compiled and nothing runs.
"""

import math
import re
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from models.tiny import TINY

from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.gpu.formulation import ops_of_gpus
from oneformer_jax.models.ops import CPU
from oneformer_jax.models.remat import Remat
from oneformer_jax.training.optimizer import OptimizerConfig, ScheduleConfig
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.sharding import Strategy, make_mesh
from oneformer_jax.training.step import StepSettings
from oneformer_jax.training.step_programs import StepPrograms, stand_in_batch, stand_in_step, traced_programs

pytestmark = pytest.mark.slow

IMAGES, SIDE = 2, 64
NORMALISED = IMAGES * SIDE * SIDE * 3 * 4  # bytes of the images in float32
OPERATION = re.compile(r"stablehlo\.(\w+)")
ARRAY = re.compile(r"tensor<((?:\d+x)*)([a-z]+\d+)>")
# What a library or a loop reads and writes lies in memory; XLA may fuse all else into what uses it.
IN_MEMORY = {"dot_general", "convolution", "custom_call", "sort", "while"}
# Each is a kernel at least, or the middle of one. Twice a parameter array suffices for the two norms of a gradient
# and for the sums over a batch that are the gradients of biases and scales, with the norms that the backward pass takes
# once more; the norm of all gradients joins them; who gathers or scatters in a loop over
# samples needs one operation for each corner of a sample, not for each sample.
MOST = {
    "normalisers": {"reduce": 4},
    "forward": {"reduce": 130, "gather": 32, "scatter": 0, "sort": 0},
    "losses": {"reduce": 40, "gather": 26, "scatter": 14, "sort": 0},
    "backward": {"reduce": 430, "gather": 8, "scatter": 20, "sort": 0},
    "update": {"reduce": 10, "gather": 0, "scatter": 0, "sort": 0},
}


def for_gpus() -> OneFormerConfig:
    """A tiny model whose heads are wide enough for the kernels of attention, with what `config.on(mesh)` chooses."""
    mesh = Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    return replace(TINY, backbone=replace(TINY.backbone, embed_dim=16), ops=ops_of_gpus(mesh), remat="light")


@pytest.fixture(scope="module", params=["kernels", pytest.param("plain", marks=pytest.mark.prove)])
def model(request: pytest.FixtureRequest) -> OneFormerConfig:
    return TINY if request.param == "plain" else for_gpus()


@pytest.fixture(scope="module")
def traced(model: OneFormerConfig) -> StepPrograms:
    """Of a tiny model with products in bfloat16."""
    return traced_programs(*stand_in_step(recipe_of(model)), stand_in_batch(model, IMAGES, (SIDE, SIDE)))


def recipe_of(model: OneFormerConfig, strategy: Strategy = "ddp") -> Recipe:
    settings = StepSettings(seed=0, precision="bf16-mixed", strategy=strategy)
    criterion = CriterionConfig(num_points=64)
    return Recipe(model, criterion, OptimizerConfig(), ScheduleConfig(), settings, (120.0,) * 3, (60.0,) * 3)


@pytest.fixture(scope="module")
def lowered(traced: StepPrograms) -> dict[str, str]:
    """The text of each program for CUDA, without the kernels that it holds as strings."""
    texts = {name: one.lower(lowering_platforms=("cuda",)).as_text() for name, one in traced._asdict().items()}
    return {name: re.sub(r'"(\\.|[^"\\])*"', '""', text) for name, text in texts.items()}


@pytest.mark.parametrize("name", StepPrograms._fields)
def test_a_program_needs_neither_host_nor_cpu_and_stays_within_its_bounds(
    model: OneFormerConfig, lowered: dict[str, str], name: str
) -> None:
    text = lowered[name]
    kernels = {"__gpu$xla.gpu.triton"} if model.ops != CPU and name in ("forward", "backward") else set()
    assert set(re.findall(r"custom_call @(\S+?)\(", text)) == kernels, "of the host, or of a library that CUDA lacks"
    assert not re.search("callback|infeed|outfeed|stablehlo.(send|recv)", text)
    assert "f64" not in text
    counts = Counter(OPERATION.findall(text))
    assert not {operation: counts[operation] for operation, most in MOST[name].items() if counts[operation] > most}
    largest = max(sizes_in_memory(text), default=0)
    # The finest map has a quarter of the pixels of the images each way and ten times the channels; gradients of kernels
    # are float32.
    kernels = max(map(bytes_of, jax.tree.leaves(oneformer.shapes(model))))
    assert largest <= max(NORMALISED * times_as_wide(model), kernels)


def times_as_wide(model: OneFormerConfig) -> int:
    """As the tiny model."""
    return model.backbone.embed_dim // TINY.backbone.embed_dim


def sizes_in_memory(text: str) -> list[int]:
    """Bytes of the arrays that lie in memory for certain."""
    lines = [line for line in text.splitlines() if (found := OPERATION.search(line)) and found[1] in IN_MEMORY]
    arrays = [array for line in lines for array in ARRAY.findall(line)]
    return [math.prod(int(size) for size in dims.split("x") if size) * item_size(dtype) for dims, dtype in arrays]


def item_size(dtype: str) -> int:
    """Bytes of an entry."""
    return 1 if dtype == "i1" else int(re.findall(r"\d+", dtype)[0]) // 8


def test_what_waits_for_the_backward_pass_is_so_many_times_the_images(
    model: OneFormerConfig, traced: StepPrograms
) -> None:
    *_, pullback = traced.forward.out_info
    assert bytes_of(pullback) <= (40 if model.remat == "none" else 15) * NORMALISED * times_as_wide(model)
    assert max(map(bytes_of, jax.tree.leaves(pullback))) <= NORMALISED * times_as_wide(model)


def test_fsdp_keeps_what_the_blocks_of_ddp_keep() -> None:
    """And what lies between the blocks is computed once more, like the parameters that it gathers."""

    def kept(strategy: Strategy, remat: Remat) -> int:
        step, state = stand_in_step(recipe_of(replace(TINY, remat=remat), strategy), make_mesh(1))
        batch = stand_in_batch(TINY, IMAGES, (SIDE, SIDE))
        return bytes_of(jax.eval_shape(step.forward_pass, state.params, state.step, batch).pullback)

    assert kept("fsdp", "dots") <= 1.25 * kept("ddp", "dots") <= 0.85 * kept("ddp", "none")
