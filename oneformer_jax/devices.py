"""Which devices of a machine a run asks for. Free of JAX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceChoice:
    """The devices of `indices` where they are given, else the first `count`.

    `chosen`: whether somebody wrote either of them, or both are defaults. `section` is the one of the spec that says
    so, for messages.
    """

    count: int = 1
    indices: tuple[int, ...] | None = None
    chosen: bool = False
    section: str = "train"
