"""The model of a GPU's time, on small programs that are counted by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from benchmarks.gpu_program import h100
from benchmarks.gpu_program.areas import area_of
from benchmarks.gpu_program.case import Case
from benchmarks.gpu_program.compiling import Part, planned_sizes
from benchmarks.gpu_program.custom_calls import StatedCost
from benchmarks.gpu_program.figures import comparison, events_in, result_of
from benchmarks.gpu_program.hlo import Shape, parse
from benchmarks.gpu_program.kernels import Kernel, Program
from benchmarks.gpu_program.schedule import Network, events_of, sent_bytes, times_of
from benchmarks.gpu_program.traced import attention_entries, stated_costs

MIB = 2**20
HEAD = "HloModule jit_f, is_scheduled=true\n"


def program(body: str, *computations: str, stated: tuple[StatedCost, ...] = ()) -> Program:
    """With this entry; `computations` come before it."""
    text = "\n\n".join([*computations, f"ENTRY %main (x: f32[8]) -> f32[8] {{\n{body}\n}}"])
    return Program(HEAD + text, stated)


def only(body: str, *computations: str, stated: tuple[StatedCost, ...] = ()) -> Kernel:
    """The one kernel of such a program."""
    (kernel,) = program(body, *computations, stated=stated).kernels
    return kernel


def test_shapes_have_bytes_and_programs_an_order() -> None:
    assert [Shape(dtype, (3, 4)).bytes for dtype in ("f32", "bf16", "pred", "s4", "f8e4m3fn", "c64")] == [
        48, 24, 12, 6, 12, 96,
    ]  # fmt: skip
    _, entry = parse(
        HEAD
        + """ENTRY %main.1 (x: f32[4,2]) -> (f32[4,2], s32[]) {
  %x = f32[4,2]{1,0} parameter(0)
  %n = s32[] constant(7)
  ROOT %both = (f32[4,2]{1,0}, /*index=1*/s32[]) tuple(%x, %n), metadata={op_name="jit(f)/pair"}
}
"""
    )
    assert [(i.name, i.opcode, i.bytes) for i in entry] == [
        ("x", "parameter", 32), ("n", "constant", 4), ("both", "tuple", 36),
    ]  # fmt: skip
    assert (entry.root.operands, entry.root.scope, entry.instructions["n"].literal) == (("x", "n"), "jit(f)/pair", "7")
    with pytest.raises(ValueError, match="no ENTRY"):
        parse(HEAD)


def test_a_product_is_counted_by_the_dtype_that_multiplies() -> None:
    dot = """
  %a = {0}[64,32]{{1,0}} parameter(0)
  %b = {0}[32,16]{{1,0}} parameter(1)
  ROOT %c = {0}[64,16]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{1}"""
    assert only(dot.format("f32", "")).operations == {"tf32": 2 * 64 * 32 * 16}
    assert only(dot.format("f32", ", operand_precision={highest,highest}")).operations == {"f32": 2 * 64 * 32 * 16}
    kernel = only(dot.format("bf16", ""))
    assert kernel.operations == {"bf16": 2 * 64 * 32 * 16}
    assert kernel.bytes == 2 * (64 * 32 + 32 * 16 + 64 * 16)
    assert (kernel.limit, kernel.seconds) == ("launch", h100.LAUNCH)


FUSED = """%fused (table: f32[1000,64], rows: s32[10,1]) -> f32[10,64] {
  %table = f32[1000,64]{1,0} parameter(0)
  %rows = s32[10,1]{1,0} parameter(1)
  ROOT %g = f32[10,64]{1,0} gather(%table, %rows), offset_dims={1}, slice_sizes={1,64}, metadata={op_name="jit(f)/take"}
}"""


def test_a_gather_reads_rows_and_lone_numbers_whole_sectors() -> None:
    body = """
  %t = f32[1000,64]{1,0} parameter(0)
  %r = s32[10,1]{1,0} parameter(1)
  ROOT %f = f32[10,64]{1,0} fusion(%t, %r), kind=kLoop, calls=%fused"""
    kernel = only(body, FUSED)
    assert kernel.cost is not None
    assert (kernel.kind, kernel.scope) == ("loop:gather", "jit(f)/take")
    assert kernel.cost.read == 10 * 64 * 4 + 10 * 4
    assert kernel.cost.written == kernel.cost.indexed == 10 * 64 * 4

    numbers = FUSED.replace("{1,64}", "{1,1}").replace("f32[10,64]", "f32[10,1]")
    lone = only(body.replace("f32[10,64]", "f32[10,1]"), numbers).cost
    assert lone is not None
    assert lone.indexed == 10 * h100.SECTOR


def test_a_slice_is_read_and_updated_alone() -> None:
    inner = """%fused (x: f32[100,64], i: s32[]) -> f32[100,64] {
  %x = f32[100,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  %s = f32[1,64]{1,0} dynamic-slice(%x, %i, %z), dynamic_slice_sizes={1,64}
  %n = f32[1,64]{1,0} negate(%s)
  ROOT %u = f32[100,64]{1,0} dynamic-update-slice(%x, %n, %i, %z)
}"""
    body = """
  %x = f32[100,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = f32[100,64]{1,0} fusion(%x, %i), kind=kLoop, calls=%fused"""
    cost = only(body, inner).cost
    assert cost is not None
    assert (cost.read, cost.written) == (64 * 4 + 4, 64 * 4)


def test_a_loop_counts_its_turns_and_a_conditional_its_dearer_branch() -> None:
    loops = """%step (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %a = f32[8]{0} add(%s, %s)
}

%goes (s: f32[8]) -> pred[] {
  %s = f32[8]{0} parameter(0)
  ROOT %p = pred[] custom-call(%s), custom_call_target="__cub$DeviceRadixSort"
}"""
    body = """
  %x = f32[8]{0} parameter(0)
  ROOT %w = f32[8]{0} while(%x), condition=%goes, body=%step, backend_config={"known_trip_count":{"n":"7"}}"""
    assert {kernel.kind: kernel.times for kernel in program(body, loops).kernels} == {
        "add": 7, "__cub$DeviceRadixSort": 7,
    }  # fmt: skip

    branches = """%cheap (s: f32[8]) -> f32[8] {
  ROOT %s = f32[8]{0} parameter(0)
}

%dear (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%s)
}"""
    body = """
  %x = f32[8]{0} parameter(0)
  %p = pred[] constant(true)
  ROOT %c = f32[8]{0} conditional(%p, %x, %x), branch_computations={%cheap, %dear}"""
    assert only(body, branches).kind == "negate"


CALL = """
  %a = bf16[{0}]{{1,0}} parameter(0)
  %b = bf16[{1}]{{1,0}} parameter(1)
  ROOT %c = (bf16[{2}]{{1,0}}, s8[4096]{{0}}) custom-call(%a, %b), custom_call_target="{3}", {4}"""


def test_libraries_are_counted_by_what_they_are_asked_for() -> None:
    config = 'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["0"]}}}'
    kernel = only(CALL.format("32,64", "32,16", "64,16", "__cublas$lt$matmul", config))
    assert kernel.operations == {"bf16": 2 * 64 * 32 * 16}
    assert kernel.bytes == 2 * (32 * 64 + 32 * 16 + 64 * 16), "what it works in does not count"

    # 2 images of 8x8, 3x3 kernels, 4 channels to 6; the derivatives multiply as often.
    labels = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    image, kernel_, result = "2,8,8,4", "3,3,4,6", "2,8,8,6"
    places = {"Forward": (image, kernel_, result), "BackwardInput": (result, kernel_, image)}
    places["BackwardFilter"] = (image, result, kernel_)
    for name, shapes in places.items():
        operations = only(CALL.format(*shapes, f"__cudnn$conv{name}", labels)).operations
        assert operations == {"bf16": 2 * (2 * 8 * 8) * (3 * 3) * 4 * 6}, name

    # 2 images, 4 heads of 16 channels, 10 queries, 12 keys.
    config = 'backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16",'
    config += '"dimensions":["2","4","10","12"]}}}'
    pairs = 2 * 4 * 10 * 12 * 16
    for name, products in (("fmhaSoftmax", 2), ("fmhaSoftmaxBackward", 5)):
        call = CALL.format("2,10,4,16", "2,12,4,16", "2,10,4,16", f"__cudnn${name}", config)
        assert only(call).operations == {"bf16": 2 * products * pairs}


def twice(x_ref: Any, y_ref: Any) -> None:
    y_ref[...] = jnp.exp(x_ref[...])


def test_an_own_kernel_costs_what_it_states_and_none_is_free() -> None:
    cost = pl.CostEstimate(flops=670, transcendentals=42, bytes_accessed=10**9)

    def call(x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.jit(pl.pallas_call(twice, out_shape=shape, cost_estimate=cost, name="twice"))(x) + 1

    stated = tuple(stated_costs(jax.jit(call).trace(jax.ShapeDtypeStruct((8, 4), jnp.float32)).jaxpr))
    assert stated == (StatedCost("twice", ((8, 4),), 670, 42, 10**9),)

    body = """
  %x = f32[8,4]{1,0} parameter(0)
  ROOT %y = f32[8,4]{1,0} custom-call(%x), custom_call_target="__gpu$xla.gpu.triton", """
    body += 'metadata={op_name="jit(call)/jit(twice)/twice/pallas_call"}'
    kernel = only(body, stated=stated)
    assert kernel.operations == {"f32": 670, "exp": 42}
    assert kernel.seconds == pytest.approx(1e9 / h100.BANDWIDTH)
    for unknown in ((), (stated[0]._replace(shapes=((8, 5),)),)):
        assert program(body, stated=unknown).uncounted == [
            "__gpu$xla.gpu.triton (jit(call)/jit(twice)/twice/pallas_call)"
        ]


def test_logits_of_attentions_are_what_an_exponential_is_taken_of() -> None:
    def attention(x: jax.Array) -> jax.Array:
        with jax.named_scope("attention"):
            return jax.jit(jax.nn.softmax)(x @ x.T) @ x

    def network(x: jax.Array) -> jax.Array:
        return jnp.exp(attention(x))

    trace = jax.jit(jax.grad(lambda x: network(x).sum())).trace(jax.ShapeDtypeStruct((6, 4), jnp.float32))
    assert attention_entries(trace.jaxpr) == {36}, "that of 24 numbers is of no attention"


# As XLA writes them: `jit` names axes of a mesh, whose devices may stand in another order, `shard_map` lists devices.
GROUPS = {
    "replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, use_global_device_ids=true": 8,
    "replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_0'}, use_global_device_ids=true": 2,
    "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}": 4,
    "replica_groups=mesh['a'=2,'b'=4] {'a','b'}": 8,
    "replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}": 2,
    "replica_groups={{0,1,2,3,4,5,6,7}}": 8,
    "replica_groups={{0,2,4},{1,3,5}}": 3,
    "replica_groups=[2,4]<=[8]": 4,
    "replica_groups=[2,4]<=[4,2]T(1,0)": 4,
}
REDUCE = """
  %x = f32[1000]{{0}} parameter(0)
  ROOT %r = f32[1000]{{0}} all-reduce(%x), channel_id=1, {}, to_apply=%add"""


@pytest.mark.parametrize(("groups", "devices"), GROUPS.items())
def test_a_collective_joins_the_devices_of_a_group(groups: str, devices: int) -> None:
    cost = only(REDUCE.format(groups)).cost
    assert cost is not None
    assert cost.sent == pytest.approx(2 * 4000 * (devices - 1) / devices)


@pytest.mark.parametrize(
    "groups", ["replica_groups={}", "replica_groups=mesh['a'=2] {'b'}", "replica_groups=@m {a}", ""]
)
def test_groups_that_are_written_in_another_way_are_not_guessed(groups: str) -> None:
    with pytest.raises(ValueError, match=r"r \(all-reduce\) joins groups that are not understood: "):
        only(REDUCE.format(groups))


# Two all-reduces of 64 MiB in float32: the first has all of %k to hide behind, the second nothing.
SENDING = """
  %x = f32[16777216]{0} parameter(0)
  %s = f32[16777216]{0} all-reduce-start(%x), replica_groups=[1,8]<=[8], to_apply=%add
  %k = f32[16777216]{0} negate(%x)
  %d = f32[16777216]{0} all-reduce-done(%s)
  ROOT %r = f32[16777216]{0} all-reduce(%d), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add"""
WHOLE = 64 * MIB


def test_what_is_sent_runs_beside_what_is_computed() -> None:
    events = events_of(program(SENDING))
    assert [event[0] for event in events] == ["start", "compute", "wait", "start", "wait"]
    assert sent_bytes(events, 8) == 2 * 2 * WHOLE * 7 / 8
    computing = 2 * WHOLE / h100.BANDWIDTH
    slow = Network(within=1e9, latency=0.0)
    sending = 2 * WHOLE * 7 / 8 / 1e9
    times = times_of(events, 8, slow)
    assert times.computing == pytest.approx(computing)
    assert times.together == pytest.approx(2 * sending), "the first hides the kernel"
    fast = Network(within=1e15, latency=0.0)
    assert times_of(events, 8, fast).efficiency == pytest.approx(1.0, abs=1e-2)
    assert times_of(events, 1, slow).together == pytest.approx(computing), "alone it sends nothing"
    # Sixteen devices on two hosts: what joins the hosts is the slowest link.
    between = Network(within=1e12, between=1e9, latency=1e-3)
    assert between.seconds("all-gather", WHOLE, 16) == pytest.approx(WHOLE * 15 / 16 / 1e9 + 4e-3)


def part(text: Program, *, output: int = 0, temp: int = 0, attention: frozenset[int] = frozenset()) -> Part:
    sizes = {"temp": temp, "argument": 0, "output": output, "alias": 0}
    return Part(text, sizes, attention, (8 * 10**6, 16 * 10**6), "jax 1")


NAMES = """
  %x = f32[1024,1024]{1,0} parameter(0)
  %l = f32[512,1024]{1,0} negate(%x), metadata={op_name="jit(f)/MaskDecoder/layer_0/self_attention/attention/exp"}
  ROOT %y = f32[1024,1024]{1,0} negate(%x), metadata={op_name="jit(f)/transpose(jvp(Swin))/stage0_block1/mul"}"""


def test_a_result_holds_the_figures_of_all_parts() -> None:
    case = Case("swin_t", 512, 2, "bf16-mixed", 8, "fsdp")
    assert case.name == "gpu_program-swin_t-512-b2-bf16-mixed-x8-fsdp"
    parts = dict.fromkeys(case.parts, part(program(NAMES), attention=frozenset({512 * 1024})))
    parts["forward"] = part(program(SENDING), output=3 * 2**30)
    parts["update"] = part(program(NAMES), temp=5 * MIB)
    result = result_of(case, parts)
    assert (result["kind"], result["modelled"]) == ("gpu_program", True)
    assert (result["kept_gib"], result["update_temp_mib"]) == (3.0, 5.0)
    assert (result["largest_array_mib"], result["largest_attention_mib"]) == (64.0, 2.0)
    assert (result["to_device_mb"], result["to_host_mb"]) == (1.0, 2.0)
    assert result["step_kernels"] == 3 + 4 * 2
    times = times_of(events_in(result), 8, Network())
    assert 1e3 * times.together == pytest.approx(result["step_ms"], rel=1e-3)

    other = result | {"kept_gib": 1.5, "revision": "b"}
    lines = comparison(result | {"revision": "a"}, other)
    assert lines[0].split() == ["a", "b", "ratio"]
    assert next(line.split() for line in lines if line.startswith("kept_gib")) == ["kept_gib", "3.0", "1.5", "0.50"]
    with pytest.raises(ValueError, match=r"what these custom calls cost: unheard_of \(\)"):
        result_of(case, parts | {"losses": part(program(CALL.format("8", "8", "8", "unheard_of", "")))})


def test_areas_are_those_of_the_model() -> None:
    assert area_of("jit(f)/jvp(MaskDecoder)/layer_0/cross_attention/dot") == "mask decoder: masked cross-attention"
    assert area_of("jit(f)/transpose(jvp(Swin))/stage0_block1/mul") == "Swin: MLP '"
    again = "jit(f)/transpose(jvp(PixelDecoder))/jvp(PixelDecoder)/{}layer_5.<lambda>/layer_5/attention/vmap()/mul"
    for name in ("checkpoint/", "checkpoint/rematted_computation/"):
        assert area_of(again.format(name)) == "deformable attention: projections, coordinates '"
    assert area_of("jit(f)/jvp(Swin)/stage0_block1.<lambda>/stage0_block1/linear1/add") == "Swin: MLP"
    assert area_of("jit(f)/add") == "other"


def test_planned_sizes_are_those_of_the_buffers() -> None:
    assignment = """BufferAssignment:
allocation 0: size 100, output shape is |f32[25]|, maybe-live-out:
 value: <1 x @0> (size=100,offset=0): f32[25]
allocation 1: size 40, parameter 0, shape |f32[10]| at ShapeIndex {}:
allocation 2: size 60, parameter 1, shape |f32[15]|, maybe-live-out:
allocation 3: size 7, preallocated-temp:
allocation 4: size 8, constant:
"""
    assert planned_sizes(assignment) == {"temp": 7, "argument": 100, "output": 160, "alias": 60}
