"""What custom calls cost: NVIDIA's libraries by what they are asked for, kernels of this project by what they state."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.gpu_program.cost import Cost, convolution, matrix_product, product_dtype
from benchmarks.gpu_program.hlo import Instruction


class StatedCost(NamedTuple):
    """The `pl.CostEstimate` of a kernel, with the name and the shapes of the results by which it is found again."""

    kernel: str
    shapes: tuple[tuple[int, ...], ...]
    operations: int
    exponentials: int
    bytes: int


SCRATCH = ("s8", "u8")
"""Of these dtypes are results that a library only works in."""
OWN = re.compile(r"(\w+)/pallas_call")


def call_cost(call: Instruction, operands: list[Instruction], stated: Sequence[StatedCost]) -> Cost | None:
    """None where nothing says what a call costs."""
    own = OWN.search(call.scope)
    if own is not None:
        return _own_kernel(own[1], call, operands, stated)
    results = [shape for shape in call.shapes if shape.dtype not in SCRATCH] or list(call.shapes)
    read, written = sum(operand.bytes for operand in operands), sum(shape.bytes for shape in results)
    target = call.target
    if target.startswith("__cublas$"):
        contracted = call.numbers("lhs_contracting_dimensions")
        return Cost(read, written, operations=matrix_product(call, operands[0].shapes[0], contracted))
    if target.startswith("__cudnn$conv"):
        return Cost(read, written, operations=_convolution(call, operands))
    if target.startswith("__cudnn$fmha"):
        return Cost(read, written, operations=_attention(call, operands))
    if target.startswith("__cub$DeviceRadixSort"):
        passes = results[0].item_size  # each sorts by 8 bits of the key
        return Cost(passes * read, passes * written)
    return None


def _own_kernel(name: str, call: Instruction, operands: list[Instruction], stated: Sequence[StatedCost]) -> Cost | None:
    shapes = tuple(shape.dims for shape in call.shapes)
    # Mosaic appends its scratch to the results.
    found = [cost for cost in stated if cost.kernel == name and shapes[: len(cost.shapes)] == cost.shapes]
    if not found:
        return None
    cost = max(found)  # of several that look alike the dearest
    floats = [shape.dtype for operand in operands for shape in operand.shapes if "f" in shape.dtype]
    operations = {product_dtype(floats[0] if floats else "f32", is_exact=True): float(cost.operations)}
    written = min(sum(shape.bytes for shape in call.shapes), cost.bytes)
    return Cost(cost.bytes - written, written, operations=operations | {"exp": float(cost.exponentials)})


def _convolution(call: Instruction, operands: list[Instruction]) -> dict[str, float]:
    """Of a convolution or a derivative, all of whose labels are those of the forward pass."""
    first, second, result = operands[0].shapes[0], operands[1].shapes[0], call.shapes[0]
    if "BackwardFilter" in call.target:
        return convolution(call, result, second)
    if "BackwardInput" in call.target:
        return convolution(call, second, first)
    return convolution(call, second, result)


def _attention(call: Instruction, operands: list[Instruction]) -> dict[str, float]:
    """Two products forward, five backward, each of all pairs of a query and a key."""
    pairs = 1
    shape = re.search(r'"intermediate_tensor_shape":\{.*?"dimensions":\[([\d",]*)\]', call.attributes)
    for size in re.findall(r"\d+", shape[1] if shape else ""):
        pairs *= int(size)
    query = operands[0].shapes[0]
    return {query.dtype: (10.0 if "Backward" in call.target else 4.0) * pairs * query.dims[-1]}
