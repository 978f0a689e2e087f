"""Which keys a run honours. The status is data of each key; this file lists it."""

from oneformer_jax.app.spec.field import leaves, plain
from oneformer_jax.app.spec.spec import Spec


def unsupported_keys(spec: Spec) -> list[str]:
    """The dotted keys that the user set to something other than the default and that the run will not honour."""
    return [
        leaf.path
        for leaf in leaves(Spec)
        if plain(spec.value(leaf.path)) != leaf.default and not leaf.key.honours(spec.value(leaf.path))
    ]


def notes() -> dict[str, str]:
    """What happens instead, for every key that is not honoured or not with every value."""
    return {leaf.path: leaf.key.note for leaf in leaves(Spec) if leaf.key.honoured is not True}
