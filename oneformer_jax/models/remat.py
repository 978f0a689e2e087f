"""What a forward pass keeps for its backward pass, and what that computes once more instead (Chen et al. 2016).

A model applies its large blocks by `block`, and marks in them what is dear to compute (`marked`). Which of the marked
arrays a block keeps beside its inputs is the choice in use: that of `OneFormerConfig.remat`, which `models.oneformer`
puts in use while it applies a module (`using`). It is no part of the architecture, and changes no number but by
rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jaxtyping import Array, Shaped

Remat = Literal["auto", "none", "light", "dots", "blocks"]
Mark = Literal["inputs", "results", "logits", "block", "draw"]
"""Of a layer: what it multiplies, where that is dear, and what comes out; of an attention: what its weights are the
softmax of; of a block: what comes out; a few random words."""

MARKS_KEPT: dict[Remat, tuple[Mark, ...]] = {
    "light": ("block", "draw", "inputs", "results", "logits"),
    "dots": ("block", "draw", "results"),
    "blocks": ("block", "draw"),
}
"""By the choice. Without one there are no blocks: whatever a derivative reads is kept."""
VIEWS = ("reshape", "broadcast_in_dim", "squeeze")
"""What only shows an array in another shape."""

_in_use: ContextVar[Remat] = ContextVar("remat", default="none")


@contextmanager
def using(remat: Remat) -> Iterator[None]:
    """Within it, this thread's blocks keep what `remat` says."""
    token = _in_use.set(remat)
    try:
        yield
    finally:
        _in_use.reset(token)


def policy(remat: Remat) -> Callable[..., bool] | None:
    """That of `jax.checkpoint` for the choice, None where all is kept."""
    marks = MARKS_KEPT.get(remat)
    return None if marks is None else jax.checkpoint_policies.save_only_these_names(*marks)


def marked(x: Shaped[Array, "*n"], mark: Mark) -> Shaped[Array, "*n"]:
    """`x`, which blocks keep where that mark is kept."""
    return checkpoint_name(x, mark) if _in_use.get() in MARKS_KEPT else x


def block(module: nn.Module, *inputs: Any, **modes: Any) -> Any:
    """The output of `module` for arrays and static modes. Its backward pass draws the same dropout once more."""
    kept = policy(_in_use.get())
    if kept is None:
        return module(*inputs, **modes)
    output = nn.remat(lambda module, *inputs: module(*inputs, **modes), policy=kept)(module, *inputs)
    return marked(output, "block")


def small_layer(module: nn.Module, *inputs: Any, **modes: Any) -> Any:
    """The same of a module that is not worth to be computed twice: with any choice it keeps all but other views of its
    inputs and parameters, each of which XLA would copy."""
    if _in_use.get() not in MARKS_KEPT:
        return module(*inputs, **modes)
    apply = nn.remat(lambda module, *inputs: module(*inputs, **modes), policy=_is_no_view, prevent_cse=False)
    return marked(apply(module, *inputs), "block")


def _is_no_view(primitive: Primitive, *_: object, **__: object) -> bool:
    return primitive.name not in VIEWS
