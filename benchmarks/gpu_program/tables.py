"""Prints what a compiled program is made of."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice

from benchmarks.gpu_program.areas import area_of
from benchmarks.gpu_program.compiling import Part
from benchmarks.gpu_program.hlo import Computation, Instruction, Shape
from benchmarks.gpu_program.kernels import Kernel, Program

MIB = 2**20
KEPT = 256 * MIB
"""A program that returns more is asked what that is."""


def show(name: str, part: Part, rows: int) -> None:
    """The tables of one program, each with so many rows at most."""
    kernels = part.program.kernels
    count, seconds = sum(kernel.times for kernel in kernels), sum(kernel.seconds for kernel in kernels)
    sizes = ", ".join(f"{size} {value / MIB:,.0f}" for size, value in part.sizes.items())
    moved, operations = sum(kernel.bytes for kernel in kernels), operations_of(kernels)
    products = ", ".join(f"{number / 1e12:.3f} T {dtype}" for dtype, number in operations.items())
    print(f"\n## {name}: {count} kernels, at least {1e3 * seconds:.2f} ms (modelled)")
    print(f"{moved / 1e9:.2f} GB moved; operations: {products or 'none'}; MiB: {sizes}")
    _groups("kind", kernels, lambda kernel: kernel.kind, rows)
    _groups("area", kernels, lambda kernel: area_of(kernel.scope), rows)
    _groups("limit", kernels, lambda kernel: kernel.limit, rows)
    _longest(kernels, rows)
    _largest(part.program, rows)
    if part.sizes["output"] - part.sizes["alias"] > KEPT:
        _kept(part.program.entry, rows)


def operations_of(kernels: list[Kernel]) -> Counter[str]:
    """Operations of all kernels by the dtype that is multiplied."""
    total: Counter[str] = Counter()
    for kernel in kernels:
        total.update(kernel.operations)
    return total


def _groups(title: str, kernels: list[Kernel], key: Callable[[Kernel], str], rows: int) -> None:
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[key(kernel)].append(kernel)
    print(f"\n{'ms':>8} {'kernels':>8} {'GB':>8} {'GFLOP':>9}  {title}")
    lines = [
        (1e3 * sum(k.seconds for k in group), sum(k.times for k in group), sum(k.bytes for k in group) / 1e9, name)
        for name, group in groups.items()
    ]
    for milliseconds, count, gigabytes, name in sorted(lines, reverse=True)[:rows]:
        gflop = operations_of(groups[name]).total() / 1e9
        print(f"{milliseconds:8.3f} {count:8d} {gigabytes:8.3f} {gflop:9.1f}  {name}")


def _longest(kernels: list[Kernel], rows: int) -> None:
    print(f"\n{'ms':>8} {'x':>5} {'MB':>9} {'GFLOP':>9}  longest kernels: kind, results, scope")
    for k in sorted(kernels, key=lambda kernel: -kernel.seconds)[:rows]:
        shapes = " ".join(map(str, k.shapes[:2])) + (" ..." if len(k.shapes) > 2 else "")
        gflop = sum(k.operations.values()) / 1e9
        numbers = f"{1e3 * k.seconds:8.3f} {k.times:5d} {k.bytes / 1e6:9.1f} {gflop:9.1f}"
        print(f"{numbers}  {k.kind} {shapes} | {k.scope[-110:]}")


def _largest(program: Program, rows: int) -> None:
    found = Counter((shape, area_of(scope)) for shape, scope in program.arrays())
    print(f"\n{'MiB':>8} {'x':>5}  largest arrays")
    for (shape, area), count in islice(sorted(found.items(), key=lambda item: -item[0][0].bytes), rows):
        print(f"{shape.bytes / MIB:8.0f} {count:5d}  {shape}  {area}")


def _kept(entry: Computation, rows: int) -> None:
    """What a program returns, by where it comes from: each array once, however often it is returned."""
    results = entry.operands(entry.root) if entry.root.opcode == "tuple" else [entry.root]
    by_source: Counter[str] = Counter()
    by_shape: Counter[tuple[Shape, str]] = Counter()
    seen = set()
    for result in results:
        source, element, is_copied = _source(entry, result)
        if (source.name, element) in seen or (source.opcode == "parameter" and not is_copied):
            continue
        seen.add((source.name, element))
        label = area_of(source.scope) + (", copied" if is_copied else "")
        by_source[label] += round(result.bytes)
        by_shape[result.shapes[0], label] += round(result.bytes)
    print(f"\n{'MiB':>8}  kept: results by area ({len(results)} arrays)")
    for label, size in by_source.most_common(rows):
        print(f"{size / MIB:8.0f}  {label}")
    print(f"\n{'MiB':>8}  kept: results by shape")
    for (shape, label), size in by_shape.most_common(rows):
        print(f"{size / MIB:8.0f}  {shape}  {label}")


def _source(entry: Computation, result: Instruction) -> tuple[Instruction, int, bool]:
    """The kernel that made a result, which of its results it is, and whether it was copied since."""
    element, is_copied = 0, False
    while result.opcode in ("bitcast", "copy", "get-tuple-element", "opt-barrier", "tuple"):
        if result.opcode == "get-tuple-element":
            element = int(re.findall(r"index=(\d+)", result.attributes)[0])
        is_copied |= result.opcode == "copy"
        result = entry.operands(result)[element if result.opcode == "tuple" else 0]
    return result, element, is_copied
