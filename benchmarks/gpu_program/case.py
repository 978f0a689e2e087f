"""What is compiled, and for which devices. Free of JAX."""

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["training", "inference"]
Strategy = Literal["ddp", "fsdp", "hsdp"]
Task = Literal["semantic", "instance", "panoptic"]
Remat = Literal["auto", "none", "light", "dots", "blocks"]


@dataclass(frozen=True)
class Case:
    """`batch` images of `size` x `size` pixels on each of so many devices.

    `precision`, `strategy` and `remat` are those of the spec. A training step has 16 segments in an image; inference
    encodes the images, decodes them for `task` and post-processes.
    """

    backbone: str
    size: int
    batch: int
    precision: str = "32"
    devices: int = 1
    strategy: Strategy = "ddp"
    purpose: Purpose = "training"
    task: Task = "semantic"
    remat: Remat = "auto"

    @property
    def name(self) -> str:
        """Of the result's file."""
        name = f"gpu_program-{self.backbone}-{self.size}-b{self.batch}-{self.precision}"
        if self.purpose == "inference":
            name += f"-inference-{self.task}"
        if self.remat != "auto":
            name += f"-{self.remat}"
        return name if self.devices == 1 else f"{name}-x{self.devices}-{self.strategy}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its programs, in the order in which they run."""
        if self.purpose == "inference":
            return "encode", "decode", self.task
        return "normalisers", "forward", "losses", "backward", "update"
