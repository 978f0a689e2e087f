"""Reads the text in which XLA writes a compiled program: computations, their instructions, and the shapes of those.

    ENTRY %main (x: f32[8,4]) -> f32[8] {
      %x = f32[8,4]{1,0} parameter(0)
      ROOT %sum = f32[8]{0} fusion(%x), kind=kInput, calls=%fused, metadata={op_name="jit(f)/reduce_sum"}
    }

The instructions of a computation stand in the order in which they are scheduled.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")
COMMENT = re.compile(r"/\*.*?\*/")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
OPERAND = re.compile(r"%([\w.\-]+)")

# Of an entry, where that is not in the name of the type.
BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}


@dataclass(frozen=True)
class Shape:
    """Of one array. `dtype` as XLA names it: f32, bf16, s32, pred."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def count(self) -> int:
        """Its entries."""
        return math.prod(self.dims)

    @property
    def item_size(self) -> float:
        """Bytes of an entry, a fraction below 8 bits."""
        bits = BITS[self.dtype] if self.dtype in BITS else int(re.findall(r"\d+", self.dtype)[0])
        return bits / 8

    @property
    def bytes(self) -> float:
        return self.count * self.item_size

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Instruction:
    """`shapes` of its results, more than one where it returns a tuple; `attributes` is what stands after its operands,
    and `literal` what stands in their place where there are none."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool = False
    literal: str = ""

    @property
    def bytes(self) -> float:
        """Of all its results."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def scope(self) -> str:
        """The path that JAX gave the operation it comes from, "" where it comes from none."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, key: str) -> str:
        """The computation that an attribute names. Raises ValueError where there is no such attribute."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        if found is None:
            raise ValueError(f"{self.name} ({self.opcode}) names no {key}")
        return found[1]

    def numbers(self, key: str) -> tuple[int, ...]:
        """Those in the braces or brackets after `key`, () where it is absent."""
        found = re.search(rf'\b{key}"?\s*[=:]\s*[{{\[]([\d,"\s]*)[}}\]]', self.attributes)
        return tuple(map(int, re.findall(r"\d+", found[1]))) if found else ()


@dataclass
class Computation:
    """A named list of instructions."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    @cached_property
    def root(self) -> Instruction:
        """What it returns."""
        return next(i for i in self if i.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """By the name of an instruction, those that take it."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self:
            for operand in dict.fromkeys(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """What an instruction takes."""
        return [self.instructions[name] for name in instruction.operands if name in self.instructions]


def parse(text: str) -> tuple[dict[str, Computation], Computation]:
    """All computations of a program by name, and the one that it begins with."""
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in map(_without_comments, text.splitlines()):
        if current is None:
            header = COMPUTATION.match(line)
            if header and not line.startswith("HloModule"):
                current = computations[header[2]] = Computation(header[2])
                entry = current if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif (instruction := _instruction(line)) is not None:
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return computations, entry


def _without_comments(line: str) -> str:
    return COMMENT.sub("", line) if "/*" in line else line


def _instruction(line: str) -> Instruction | None:
    head = NAME.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    call = re.match(r"\s*([\w\-]+)\(", rest[end:])
    if call is None:
        return None
    start = end + call.end() - 1
    stop = _closing(rest, start)
    inside = rest[start + 1 : stop]
    operands = tuple(OPERAND.findall(inside))
    literal = "" if operands else inside
    return Instruction(head[2], call[1], _shapes(rest[:end]), operands, rest[stop + 1 :], bool(head[1]), literal)


def _shapes(text: str) -> tuple[Shape, ...]:
    """Of a type, which may be a tuple; bounds of dynamic sizes are taken as sizes."""
    found = ARRAY.finditer(text)
    return tuple(Shape(m[1], tuple(int(size.lstrip("<=")) for size in m[2].split(",") if size)) for m in found)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis closes that opens at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a parenthesis does not close: {text[:200]}")
