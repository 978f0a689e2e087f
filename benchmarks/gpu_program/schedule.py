"""When a program of several devices computes and when it sends, on any number of devices.

Kernels run one after another, collectives one after another beside them; a kernel that needs what a collective brings
waits for it. Whether the two slow each other down is not modelled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.gpu_program.cost import COLLECTIVES
from benchmarks.gpu_program.h100 import LINK
from benchmarks.gpu_program.kernels import Program, Wait

Event = tuple[Any, ...]
"""("compute", seconds), ("start", name, kind of collective, bytes of all its parts) or ("wait", name)."""


@dataclass(frozen=True)
class Network:
    """How fast devices send: bytes a second of a GPU to others of its host, bytes a second of a host to others, GPUs of
    a host, and the seconds of one hop."""

    within: float = LINK
    between: float = 50e9
    host: int = 8
    latency: float = 10e-6

    def seconds(self, kind: str, whole: float, devices: int) -> float:
        """Of one collective over so many devices, as NCCL's rings send it; its trees, for the latency, are logarithmic.

        In a ring through all hosts every link carries the same, so the slowest one counts.
        """
        if devices == 1:
            return 0.0
        rounds = 2 if kind == "all-reduce" else 1
        rate = self.within if devices <= self.host else min(self.within, self.between)
        return rounds * (whole * (devices - 1) / devices / rate + math.ceil(math.log2(devices)) * self.latency)


class Times(NamedTuple):
    """Seconds: of all kernels, of all collectives, and from the first kernel to the last with both."""

    computing: float
    sending: float
    together: float

    @property
    def efficiency(self) -> float:
        """Images a second of a device beside those of a device alone."""
        return self.computing / self.together


def events_of(program: Program) -> list[Event]:
    """The schedule of a program, with what computes between two collectives as one event."""
    events: list[Event] = []
    started: set[str] = set()
    computing = 0.0

    def add(*event: Any) -> None:
        nonlocal computing
        if computing:
            events.append(("compute", computing))
        computing = 0.0
        events.append(event)

    for step in program.schedule:
        if isinstance(step, Wait):
            if step.name in started:
                add("wait", step.name)
        elif step.kind in COLLECTIVES:
            started.add(step.name)
            add("start", step.name, step.kind, step.whole * step.times)
            if not step.is_apart:
                add("wait", step.name)
        else:
            computing += step.seconds
    return [*events, ("compute", computing)] if computing else events


def times_of(events: Sequence[Event], devices: int, network: Network) -> Times:
    """How long a schedule takes on so many devices."""
    clock = free = computing = sending = 0.0
    ends: dict[str, float] = {}
    for what, *rest in events:
        if what == "compute":
            clock += rest[0]
            computing += rest[0]
        elif what == "start":
            name, kind, whole = rest
            duration = network.seconds(kind, whole, devices)
            free = ends[name] = max(free, clock) + duration
            sending += duration
        else:
            clock = max(clock, ends[rest[0]])
    return Times(computing, sending, max(clock, free))


def sent_bytes(events: Sequence[Event], devices: int) -> float:
    """What each of so many devices sends in a schedule, with rings."""
    whole = sum((2 if event[2] == "all-reduce" else 1) * event[3] for event in events if event[0] == "start")
    return whole * (devices - 1) / devices
