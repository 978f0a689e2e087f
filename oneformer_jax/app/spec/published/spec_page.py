"""`python -m oneformer_jax.app.spec.published.spec_page > docs/spec.md` writes the page of all keys."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from oneformer_jax.app.spec.field import Branch, Leaf, children, expected, leaves
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.synonyms import NOT_AVAILABLE, SYNONYMS

HEADER = """# The spec

Every key that a spec file may hold. Written by `python -m oneformer_jax.app.spec.published.spec_page > docs/spec.md`
from the declarations of the keys; the files that tell TAO's tools the same, [configs/skill](../configs/skill), by
`python cli.py schema --output configs/skill`. A template to start from: `python cli.py default_specs train`.

Honoured: "yes"; "only so" where any value but those accepted is refused, because the choice is not there; or what
happens instead. A run that sets a key which is not honoured to something other than its
default names it. Values outside the bounds and unknown keys are refused too, with the line on which they are written.
"""
DIFFERENCES = """
## Where this project differs from TAO

The schemas and templates say what TAO's say. This table lists where a spec may hold more or less here than those
publish, where a default differs, what TAO (version 7.0.1) does with a key instead of what its meaning says, and the
keys that its schema has not.
"""
SEARCH = """
## What a search varies

The keys that TAO's schema offers to AutoML, with its bounds, and where [`cli.py automl`](automl.md) looks. Any other
key that a training honours can be searched by name.
"""
ABSENT = """
Sections of TAO that are refused:
"""
OTHERS = """
Other names of a key, from TAO's guide and code. Two different values under both names are refused:
"""


def page() -> str:
    """The page as Markdown."""
    keys = list(leaves(Spec))
    lines = [HEADER, *_summary(keys)]
    for title, section_keys in _sections(children(Spec), "The top of the file"):
        rows = [_row(leaf) for leaf in section_keys]
        lines += [f"\n## {title}\n", *_table("Key", "Type", "Default", "Accepted", "Meaning", "Honoured", rows=rows)]
    differences = [row for leaf in keys if (row := _difference(leaf))]
    offered = [leaf for leaf in keys if leaf.automl]
    lines += [SEARCH, *_table("Key", "Published", "Searched here", rows=[_search(leaf) for leaf in offered])]
    absent = [(f"`{path}.*`", reason) for path, reason in NOT_AVAILABLE.items()]
    others = [(f"`{other}`", f"`{path}`") for other, path in SYNONYMS.items()]
    lines += [DIFFERENCES, *_table("Key", "TAO", "Here", rows=differences)]
    lines += [ABSENT, *_table("Section", "Reason", rows=absent), OTHERS, *_table("Name", "Key", rows=others), ""]
    return "\n".join(lines)


def _summary(keys: Sequence[Leaf]) -> list[str]:
    """How many keys there are of each kind."""
    published = [leaf for leaf in keys if not leaf.extension]
    counts = Counter(_status(leaf).partition(":")[0] for leaf in published)
    kinds = ", ".join(f'{counts[kind]} "{kind}"' for kind in ("yes", "only so", "in part", "no") if counts[kind])
    return [f"{len(keys)} keys: {kinds}; {len(keys) - len(published)} that TAO's schema has not."]


def _sections(nodes: Iterator[Leaf | Branch], title: str) -> Iterator[tuple[str, list[Leaf]]]:
    """The keys right below each section, section by section."""
    below = list(nodes)
    if found := [node for node in below if isinstance(node, Leaf)]:
        yield title, found
    for node in below:
        if isinstance(node, Branch):
            yield from _sections(node.children(), f"`{node.path}`: {_cell(node.field.description).rstrip('.')}")


def _row(leaf: Leaf) -> tuple[str, ...]:
    return (
        f"`{leaf.path}`",
        leaf.type,
        _code(leaf.default),
        _accepted(leaf),
        _cell(leaf.field.description),
        _status(leaf),
    )


def _status(leaf: Leaf) -> str:
    """Whether a run does what the key says, and why not."""
    if leaf.key.honoured is True:
        kind = "only so" if leaf.key.only else "yes"
    else:
        kind = "no" if leaf.key.honoured is False else "in part"
    return f"{kind}: {leaf.key.note}" if leaf.key.note else kind


def _accepted(leaf: Leaf) -> str:
    """The values that a spec may give."""
    aliases = ", ".join(f"{alias} for {value}" for alias, value in leaf.key.aliases)
    return _cell(expected(leaf.field) + (f" ({aliases})" if aliases else ""))


def _difference(leaf: Leaf) -> tuple[str, ...] | None:
    """What TAO publishes and does about a key, and what this project does; None: the same."""
    facts = leaf.key
    if leaf.extension:
        return f"`{leaf.path}`", facts.tao or "not there", _cell(leaf.field.description)
    sides = []
    if leaf.published_default != leaf.default:
        sides.append((f"default {_code(leaf.published_default)}", f"default {_code(leaf.default)}"))
    if facts.only:
        sides.append((leaf.type, f"only {_accepted(leaf)}"))
    elif facts.enum or leaf.is_wider:
        sides.append((", ".join(facts.enum) or leaf.type, _accepted(leaf)))
    if facts.tao:
        sides.append((facts.tao, facts.note or "honoured"))
    return (f"`{leaf.path}`", *("; ".join(side) for side in zip(*sides, strict=True))) if sides else None


def _search(leaf: Leaf) -> tuple[str, ...]:
    """The published bounds of a key, and the range in which our search looks for it or why it does not."""
    facts, own = leaf.key, leaf.key.search
    searched = f"{own.low:g} .. {own.high:g}{', by the logarithm' if own.log else ''}" if own else "as published"
    if facts.unsearched:
        searched = f"only by name ({searched}): {facts.unsearched}"
    return f"`{leaf.path}`", f"{facts.minimum} .. {facts.maximum}", searched


def _table(*titles: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (titles, ("---",) * len(titles), *rows)]


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")


def _code(value: Any) -> str:
    return "" if value in ("", None) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    print(page(), end="")
