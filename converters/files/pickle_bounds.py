"""How large a pickle can become, before it is loaded.

A pickle of some kilobytes may nest tuples so deeply that hashing them overflows the stack, or hold one object twice
within itself so many times that hashing it never ends. Neither is stopped by Python. What a pickle does to the stack of
its machine is known for every operation (`pickletools`), so depth and size are counted without making anything.
"""

import pickle
import pickletools
from typing import IO

DEEPEST = 1000
LARGEST = 10**8
"""Objects, where one that lies in several counts in each of them."""

_MARK = pickletools.markobject
_SLICE = pickletools.stackslice
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_INTO = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Operations that put what they take into the object below, which stays."""


class _Mark:
    """Where a group of objects begins."""


class _Thing:
    """An object: how deeply it is nested, and how many objects it holds, itself included."""

    __slots__ = ("depth", "size")

    def __init__(self) -> None:
        self.depth, self.size = 1, 1

    def hold(self, others: "list[_Thing]") -> None:
        for other in others:
            self.depth = max(self.depth, other.depth + 1)
            self.size += other.size
        if self.depth > DEEPEST or self.size > LARGEST:
            raise pickle.UnpicklingError("its objects are nested too deeply, or within each other too often")


def check_bounds(file: IO[bytes]) -> None:
    """Reads the next pickle of a file, loads nothing, and goes back to where it began.

    Raises UnpicklingError where it is nested more than `DEEPEST` deep or holds more than `LARGEST` objects, and
    ValueError or IndexError where it is damaged.
    """
    start = file.tell()
    stack: list[_Thing | _Mark] = []
    memo: dict[int, _Thing] = {}
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name == "MARK":
            stack.append(_Mark())
        elif name in _PUTS:
            thing = stack[-1]
            if isinstance(thing, _Thing):
                memo[len(memo) if argument is None else int(argument)] = thing
        elif name in _GETS:
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _take(stack, operation)
            if name in _INTO and taken:
                taken[0].hold(taken[1:])
                stack.append(taken[0])
            else:
                for _ in operation.stack_after:
                    made = _Thing()
                    made.hold(taken)
                    stack.append(made)
    file.seek(start)


def _take(stack: list[_Thing | _Mark], operation: pickletools.OpcodeInfo) -> list[_Thing]:
    """Takes from the stack what an operation does, in the order in which it was put there."""
    before = operation.stack_before
    taken: list[_Thing] = []
    if _MARK in before:
        while isinstance(thing := stack.pop(), _Thing):
            taken.append(thing)
        before = before[: before.index(_MARK)]
    for _ in before:
        if isinstance(thing := stack.pop(), _Thing):
            taken.append(thing)
    return taken[::-1]
