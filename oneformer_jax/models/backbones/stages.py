"""What the configurations of backbones of four stages have in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from oneformer_jax.models import remat
from oneformer_jax.models.backbones.registry import BackboneConfig
from oneformer_jax.models.layers import Init


@dataclass(frozen=True, kw_only=True)
class StagedConfig(BackboneConfig):
    """A backbone whose stages have so many blocks each; the parameters of stage i are named `stage{i}_...`.

    `use_checkpoint`: blocks are computed again for the backward pass. `init` is the distribution of initial kernels
    (`layers.INITIALIZERS`). `frozen_stages` run as in evaluation while the rest trains: without what it drops.
    """

    depths: tuple[int, ...]
    use_checkpoint: bool = False
    init: Init = "original"
    frozen_stages: tuple[int, ...] = ()

    def for_inference(self) -> "StagedConfig":
        return replace(self, use_checkpoint=False)

    def with_frozen(self, is_frozen: Callable[[str], bool]) -> "StagedConfig":
        return replace(self, frozen_stages=tuple(i for i in range(len(self.depths)) if is_frozen(f"stage{i}_")))

    def keeping(self) -> AbstractContextManager[None]:
        """Around a block: what is kept of it for the backward pass."""
        return remat.using("blocks") if self.use_checkpoint else nullcontext()
