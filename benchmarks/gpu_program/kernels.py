"""A compiled program as the kernels that it starts, in the order of its schedule.

A loop counts each of its turns, a conditional its dearer branch.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.gpu_program.cost import (
    COLLECTIVES,
    Cost,
    collective_cost,
    fusion_cost,
    group_size,
    nested,
    plain_cost,
)
from benchmarks.gpu_program.custom_calls import StatedCost, call_cost
from benchmarks.gpu_program.hlo import Computation, Instruction, Shape, parse

# They start nothing: they name, place or bundle arrays.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "add-dependency"),
}
MOVES = {"copy", "slice", "concatenate", "pad", "broadcast", "reshape", "reverse", "dynamic-slice"}
# A fusion is called after the first of these that is in it.
TELLING = ("dot", "convolution", "scatter", "gather", "reduce", "transpose", "dynamic-update-slice", "sort")


@dataclass(frozen=True)
class Kernel:
    """One entry of the schedule, which runs `times` times; `cost` is that of one run, None where nothing says it.

    Of a collective, `whole` are the bytes of all parts of what it joins, and `is_apart` says whether others run before
    the schedule waits for it.
    """

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    scope: str
    times: int
    cost: Cost | None
    whole: float = 0.0
    is_apart: bool = False

    @property
    def limit(self) -> str:
        """What limits it."""
        limits = self._cost.limits
        return max(limits, key=lambda name: limits[name])

    @property
    def seconds(self) -> float:
        """Of all its runs, at least."""
        return self.times * max(self._cost.limits.values())

    @property
    def bytes(self) -> float:
        """What all its runs read and write."""
        return self.times * (self._cost.read + self._cost.written)

    @property
    def operations(self) -> dict[str, float]:
        """Of all its runs."""
        return {dtype: self.times * count for dtype, count in self._cost.operations.items()}

    @property
    def _cost(self) -> Cost:
        return self.cost or Cost()


@dataclass(frozen=True)
class Wait:
    """An entry of the schedule that begins when the collective of this name has ended."""

    name: str


class Program:
    """A program in XLA's text, and what its own kernels state."""

    def __init__(self, text: str, stated: Sequence[StatedCost] = ()) -> None:
        self._computations, self.entry = parse(text)
        self._stated = stated
        self.schedule = list(self._scheduled(self.entry, 1))
        self.kernels = [step for step in self.schedule if isinstance(step, Kernel)]

    @property
    def uncounted(self) -> list[str]:
        """The custom calls of which nothing says what they cost."""
        return [f"{kernel.kind} ({kernel.scope})" for kernel in self.kernels if kernel.cost is None]

    def arrays(self) -> Iterator[tuple[Shape, str]]:
        """What is in memory at some time besides the arguments: shape and scope of each result of a kernel."""
        for kernel in self.kernels:
            for shape in kernel.shapes:
                yield shape, kernel.scope

    def _scheduled(self, computation: Computation, times: int) -> Iterator[Kernel | Wait]:
        for i in computation:
            if i.opcode in FREE:
                continue
            if i.opcode.endswith("-done"):
                yield Wait(i.operands[0])
            elif i.opcode == "while":
                found = re.search(r'known_trip_count":\s*\{"n":\s*"(\d+)"', i.attributes)
                turns = times * (int(found[1]) if found else 1)
                for part in ("condition", "body"):
                    yield from self._scheduled(self._computations[i.called(part)], turns)
            elif i.opcode == "conditional":
                branches = [list(self._scheduled(self._computations[name], times)) for name in _branches(i)]
                yield from max(branches, key=_seconds)
            elif i.opcode in ("call", "async-start"):
                inner = self._computations[i.called("to_apply" if i.opcode == "call" else "calls")]
                for step in self._scheduled(inner, times):
                    if i.opcode == "async-start" and isinstance(step, Kernel):
                        step = replace(step, name=i.name, is_apart=True)  # what waits for it, waits for this name
                    yield step
            else:
                yield self._kernel(computation, i, times)

    def _kernel(self, computation: Computation, i: Instruction, times: int) -> Kernel:
        operands = computation.operands(i)
        kind = i.opcode.removesuffix("-start")
        if kind == "fusion":
            inner = self._computations[i.called("calls")]
            contents = [j for _, j in nested(inner, self._computations)]
            cost = fusion_cost(inner, self._computations)
            return Kernel(i.name, _kind_of(i, contents), i.shapes, _scope_of(i, contents), times, cost)
        if kind == "custom-call":
            return Kernel(i.name, i.target, i.shapes, i.scope, times, call_cost(i, operands, self._stated))
        if kind in COLLECTIVES:
            whole = sum(operand.bytes for operand in operands) * (group_size(i) if kind == "all-gather" else 1)
            is_apart = kind != i.opcode
            return Kernel(i.name, kind, i.shapes, i.scope, times, collective_cost(i, operands), whole, is_apart)
        return Kernel(i.name, kind, i.shapes, i.scope, times, plain_cost(i, operands))


def _seconds(steps: list[Kernel | Wait]) -> float:
    return sum(step.seconds for step in steps if isinstance(step, Kernel))


def _branches(conditional: Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    if found is not None:
        return re.findall(r"%?([\w.\-]+)", found[1])
    return [conditional.called("true_computation"), conditional.called("false_computation")]


def _kind_of(fusion: Instruction, contents: list[Instruction]) -> str:
    """Who makes the kernel of a fusion, and what for: `loop:reduce`, `triton-gemm:dot`."""
    found = re.search(r'"fusion_backend_config":\{"kind":"(\w+)"', fusion.attributes)
    found = found or re.search(r"kind=k(\w+)", fusion.attributes)
    maker = found[1].strip("_").replace("triton_nested_gemm_fusion", "triton-gemm").lower() if found else "fusion"
    opcodes = Counter(i.opcode for i in contents if i.opcode not in FREE)
    telling = next((opcode for opcode in TELLING if opcodes[opcode]), None)
    if telling is None:
        telling = "move" if opcodes.keys() <= MOVES else "convert" if set(opcodes) == {"convert"} else "elementwise"
    return f"{maker}:{telling}"


def _scope_of(fusion: Instruction, contents: list[Instruction]) -> str:
    """The scope of a fusion; where it has none, the one that most of what is in it has."""
    scopes = Counter(i.scope for i in contents if i.scope)
    return fusion.scope or (scopes.most_common(1)[0][0] if scopes else "")
