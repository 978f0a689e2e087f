"""What a kernel has to move and to compute at least, read off the instruction that it is made of.

Bytes are those of operands and results, where a fusion slices, gathers or updates only those of that part; what a
fusion makes inside costs nothing. Of what is computed only products count.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.gpu_program import h100
from benchmarks.gpu_program.hlo import Computation, Instruction, Shape

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


@dataclass(frozen=True)
class Cost:
    """Bytes read from and written to memory, bytes moved in tables that gathers and scatters index, operations by the
    dtype that is multiplied, and bytes sent to other devices."""

    read: float = 0.0
    written: float = 0.0
    indexed: float = 0.0
    operations: Mapping[str, float] = field(default_factory=dict)
    sent: float = 0.0

    @property
    def limits(self) -> dict[str, float]:
        """Seconds by what may limit the kernel; the longest counts."""
        return {
            "launch": h100.LAUNCH,
            "memory": (self.read + self.written) / h100.BANDWIDTH,
            "cache": self.indexed / h100.CACHE_BANDWIDTH,
            "products": sum(count / h100.PEAK[dtype] for dtype, count in self.operations.items()),
            "link": self.sent / h100.LINK,
        }


def product_dtype(dtype: str, *, is_exact: bool = False) -> str:
    """The key of `h100.PEAK` for a product of numbers of a dtype; of float32 it is TF32 unless it must be exact."""
    if dtype == "f32":
        return "f32" if is_exact else "tf32"
    return dtype if dtype in h100.PEAK else "f32"


def plain_cost(instruction: Instruction, operands: list[Instruction]) -> Cost:
    """Of an instruction that is a kernel of its own, but for fusions, custom calls and collectives."""
    opcode, size = instruction.opcode, instruction.bytes
    if opcode in ("dynamic-slice", "slice"):
        return Cost(size, size)
    if opcode == "dynamic-update-slice":
        return Cost(operands[1].bytes, operands[1].bytes)
    return Cost(sum(operand.bytes for operand in operands), size, operations=products(instruction, operands))


def products(instruction: Instruction, operands: list[Instruction]) -> dict[str, float]:
    """Multiplications and additions of a matrix product or a convolution, {} of anything else."""
    if instruction.opcode == "dot":
        contracted = instruction.numbers("lhs_contracting_dims")
        return matrix_product(instruction, operands[0].shapes[0], contracted)
    if instruction.opcode == "convolution":
        return convolution(instruction, operands[1].shapes[0], instruction.shapes[0])
    return {}


def matrix_product(instruction: Instruction, left: Shape, contracted: tuple[int, ...]) -> dict[str, float]:
    """Of a product into the first result, where these axes of the left factor are summed over."""
    inner = math.prod(left.dims[axis] for axis in contracted)
    return {_dtype_of(instruction, left): 2.0 * instruction.shapes[0].count * inner}


def convolution(instruction: Instruction, kernel: Shape, outputs: Shape) -> dict[str, float]:
    """Of a convolution, or of a derivative of it, whose forward pass makes `outputs` with `kernel`."""
    layout = instruction.attributes.partition("dim_labels=")[2]
    channels = kernel.dims[layout.partition("_")[2].partition("->")[0].index("o")]
    return {_dtype_of(instruction, outputs): 2.0 * outputs.count * kernel.count / channels}


def _dtype_of(instruction: Instruction, factor: Shape) -> str:
    attributes = instruction.attributes.replace(" ", "")
    is_exact = "operand_precision={highest" in attributes or '"operand_precision":["HIGHEST"' in attributes
    return product_dtype(factor.dtype, is_exact=is_exact)


def collective_cost(instruction: Instruction, operands: list[Instruction]) -> Cost:
    """Of a collective, as rings send it."""
    kind, whole = instruction.opcode.removesuffix("-start"), sum(operand.bytes for operand in operands)
    if kind == "collective-permute":  # it names pairs instead of groups
        return Cost(whole, whole, sent=whole)
    devices = group_size(instruction)
    share = {"all-reduce": 2 * (devices - 1) / devices, "all-gather": devices - 1}
    return Cost(whole, whole, sent=whole * share.get(kind, (devices - 1) / devices))


def group_size(instruction: Instruction) -> int:
    """How many devices a collective joins: those of its first group, `{{0,1},{2,3}}` or `[2,2]<=[4]`, or those along
    the axes that it names of a mesh, `mesh['a'=2,'b'=4] {'b'}`, of one of which that may be a part, `'b':(1)2`.

    Raises ValueError where its groups are written in another way.
    """
    text = instruction.attributes.partition("replica_groups=")[2]
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    if counted := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(counted[1])
    if named := re.match(r"mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? \{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        joined = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        if joined and all(axis in sizes for axis, _ in joined):
            return math.prod(int(part or sizes[axis]) for axis, part in joined)
    raise ValueError(f"{instruction.name} ({instruction.opcode}) joins groups that are not understood: {text[:80]!r}")


def fusion_cost(inner: Computation, computations: Mapping[str, Computation]) -> Cost:
    """Of a fusion, from the computation inside."""
    root = inner.root
    roots = inner.operands(root) if root.opcode == "tuple" else [root]
    read = sum(_read(inner, i, i.bytes) for i in inner if i.opcode == "parameter")
    written = sum(_written(inner, i) for i in roots)
    gathered = sum(_gathered(i) for i in inner if i.opcode == "gather")
    scattered = sum(2 * _updates(inner, i).bytes for i in inner if i.opcode == "scatter")  # read, added to, written
    operations: Counter[str] = Counter()
    for computation, i in nested(inner, computations):
        operations.update(products(i, computation.operands(i)))
    return Cost(read, written, gathered + scattered, operations)


def nested(inner: Computation, computations: Mapping[str, Computation]) -> list[tuple[Computation, Instruction]]:
    """All instructions of a fusion, with the computation they are in, those of fusions inside it too."""
    found = []
    for i in inner:
        found.append((inner, i))
        if i.opcode == "fusion":
            found += nested(computations[i.called("calls")], computations)
    return found


def _read(inner: Computation, i: Instruction, whole: float) -> float:
    """Bytes that are read of one that is `whole` bytes long."""
    total = 0.0
    for user in inner.users.get(i.name, []):
        is_first = user.operands[0] == i.name
        if user.opcode == "bitcast":
            total += _read(inner, user, whole)
        elif user.opcode in ("dynamic-slice", "slice") and is_first:
            total += user.bytes
        elif user.opcode == "gather" and is_first:
            moved = _gathered(user)
            missed = moved * (1 - h100.CACHE / whole) if whole > h100.CACHE else 0.0
            total += max(min(whole, moved), missed)
        elif user.opcode == "scatter" and is_first:
            total += min(whole, _updates(inner, user).bytes)
        elif not (user.opcode == "dynamic-update-slice" and is_first):
            return max(whole, total)
    return total


def _written(inner: Computation, root: Instruction) -> float:
    while root.opcode in ("bitcast", "convert"):
        below = inner.operands(root)
        if not below or below[0].opcode not in ("bitcast", "convert", "dynamic-update-slice", "scatter"):
            break
        root = below[0]
    if root.opcode == "dynamic-update-slice":
        return inner.operands(root)[1].bytes
    return min(root.bytes, _updates(inner, root).bytes) if root.opcode == "scatter" else root.bytes


def _updates(inner: Computation, scatter: Instruction) -> Instruction:
    return inner.instructions[scatter.operands[-1]]


def _gathered(gather: Instruction) -> float:
    """Bytes that a gather moves, in whole sectors."""
    row = gather.shapes[0].item_size * math.prod(gather.numbers("slice_sizes"))
    return gather.bytes / max(row, 1) * max(row, h100.SECTOR)
