"""The part of a result that is wanted: segments of some classes, instances that reach a score."""

import difflib
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import DataError
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Result

VOID = -1
"""In a class map: a pixel of no class that is wanted."""


def classes_named(lists: Iterable[str], categories: Categories) -> frozenset[int]:
    """The indices of the classes that `lists` name: names divided by commas, or one name with commas in it.

    Raises DataError with all names that no class has, and the nearest that there are.
    """
    known = set(categories.names)
    wanted = [
        name
        for text in lists
        for name in ([text] if text in known else [part.strip() for part in text.split(",") if part.strip()])
    ]
    if unknown := [name for name in dict.fromkeys(wanted) if name not in known]:
        raise DataError("; ".join(_no_class(name, categories.names) for name in unknown), hint=_listed(categories))
    return frozenset(index for index, name in enumerate(categories.names) if name in wanted)


def _no_class(name: str, known: Sequence[str]) -> str:
    by_case = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name.casefold(), list(by_case), n=1, cutoff=0.5)
    return f"the model has no class '{name}'" + (f": did you mean '{by_case[near[0]]}'?" if near else "")


def _listed(categories: Categories) -> str:
    names, shown = categories.names, 20
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"its classes are {', '.join(names[:shown])}{more}"


def only(result: Result, classes: Set[int] | None = None, min_score: float = 0.0) -> Result:
    """A result with the segments, instances and pixels of `classes` (None: all), of segments and instances those that
    reach `min_score`.

    Panoptic segments are numbered anew from 1; pixels of others belong to none. Where classes are chosen, a class map
    is int32 and holds `VOID` for the others.
    """
    semantic, instance, panoptic = result.semantic, result.instance, result.panoptic

    def is_wanted(found: Instance | PanopticSegment) -> bool:
        return found.score >= min_score and (classes is None or found.category in classes)

    if semantic is not None and classes is not None:
        semantic = np.where(np.isin(semantic, sorted(classes)), semantic.astype(np.int32), np.int32(VOID))
    if instance is not None:
        instance = tuple(filter(is_wanted, instance))
    if panoptic is not None:
        panoptic = _with(panoptic, [segment for segment in panoptic.segments if is_wanted(segment)])
    return Result(semantic, instance, panoptic)


def _with(panoptic: PanopticResult, kept: Sequence[PanopticSegment]) -> PanopticResult:
    if len(kept) == len(panoptic.segments):
        return panoptic
    number_of = np.zeros(1 + max(segment.id for segment in panoptic.segments), np.int32)
    number_of[[segment.id for segment in kept]] = np.arange(1, len(kept) + 1)
    segments = tuple(replace(segment, id=number) for number, segment in enumerate(kept, start=1))
    return PanopticResult(number_of[panoptic.ids], segments)
