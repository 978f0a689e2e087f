"""Which pictures train and which validate, the same ones each time, with what belongs together on one side."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

from oneformer_jax.data.importers.reader import Item

_LAST_NUMBER = re.compile(r"\d+\D*$")
_MUCH, _LITTLE = 1.5, 0.5  # times the share that is wanted


def divided(items: Sequence[Item], share: float, guesses: list[str]) -> dict[str, list[Item]]:
    """The pictures of each split: as the source has them or, where it does not say, a `share` of them as "val".

    Whole groups validate where names show them: folders, or what stands before the last number of a name, as in frames
    of videos. Groups that are too large are cut where they end, so that neighbouring frames are still apart.
    """
    told = {split: [item for item in items if item.split == split] for split in ("train", "val", "test")}
    untold = [item for item in items if not item.split]
    if told["val"] or not share:
        if untold and told["val"]:
            guesses.append(f"{len(untold)} pictures are of no split that the source names: they train.")
        told["train"] += untold
    else:
        chosen = _held_out(told["train"] + untold, share, guesses)
        told["train"], told["val"] = (
            [it for it in told["train"] + untold if (it in chosen) == side] for side in (False, True)
        )
    return {split: found for split, found in told.items() if found}


def _held_out(items: list[Item], share: float, guesses: list[str]) -> set[Item]:
    wanted = max(1, round(share * len(items)))
    if len(items) < 2:
        return set()
    groups = _groups(items)
    if len(groups) == len(items) or len(groups) == 1:
        guesses.append(f"Nothing says which pictures validate: {wanted} are chosen at random, always the same.")
        return set(sorted(items, key=lambda item: _draw(item.name))[:wanted])
    chosen: set[Item] = set()
    for name in sorted(groups, key=_draw):
        most = min(max(_MUCH * wanted, wanted + 1), len(items) - 1)
        if len(chosen) + len(groups[name]) <= most and len(chosen) < wanted:
            chosen |= set(groups[name])
    if len(chosen) >= _LITTLE * wanted:
        guesses.append(
            f"Nothing says which pictures validate: {len(chosen)} of {len(items)} do, in whole groups of the "
            f"{len(groups)} that names show, such as {min(filter(None, groups))!r}."
        )
        return chosen
    for group in groups.values():
        last = round(share * len(group))
        chosen |= set(sorted(group, key=_natural)[len(group) - last :])
    guesses.append(
        f"Nothing says which pictures validate: names show {len(groups)} sequences, such as "
        f"{min(filter(None, groups))!r}, too large to keep whole, so the last {share:.0%} of each validate. Pictures "
        "like them train, which flatters the scores."
    )
    return chosen


def _groups(items: Sequence[Item]) -> dict[str, list[Item]]:
    """By the group of the source, else by folder where there are several, else by what precedes the last number."""
    by_folder = len({item.name.rpartition("/")[0] for item in items}) > 1
    groups = defaultdict[str, list[Item]](list)
    for item in items:
        folder, _, name = item.name.rpartition("/")
        groups[item.group or (folder if by_folder else _LAST_NUMBER.sub("", name))].append(item)
    return groups


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _natural(item: Item) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", item.name)]
