"""`python -m oneformer_jax.spec.support_page > docs/unsupported-keys.md` writes the page of keys not honoured."""

from collections.abc import Sequence

from oneformer_jax.spec.field import expected, leaves
from oneformer_jax.spec.spec import Spec
from oneformer_jax.spec.synonyms import NOT_AVAILABLE, SYNONYMS

HEADER = """# Keys that are accepted but not honoured

Generated from the declarations of the keys: `python -m oneformer_jax.spec.support_page > docs/unsupported-keys.md`.

A spec may hold these keys. A run that sets one to something other than its default names it. "In part": some values
are honoured.
"""
ONLY = """
# Keys with few available values

Any other value is refused, with the line on which it is written.
"""
EXTENSIONS = """
# Keys beyond TAO's published schema

Other names for a key of the schema are accepted too; two different values under both names are refused.
"""


def page() -> str:
    """The page as Markdown."""
    keys = list(leaves(Spec))
    rows = [
        (f"`{leaf.path}`", _code(leaf.default), "in part" if callable(leaf.key.honoured) else "no", leaf.key.note)
        for leaf in keys
        if leaf.key.honoured is not True
    ]
    only = [(f"`{leaf.path}`", f"`{expected(leaf.field)}`") for leaf in keys if leaf.key.only]
    absent = [(f"`{path}.*`", f"refused: {reason}") for path, reason in NOT_AVAILABLE.items()]
    extensions = [
        (f"`{leaf.path}`", _code(leaf.default), str(leaf.field.description)) for leaf in keys if leaf.key.extension
    ]
    others = [(f"`{other}`", "", f"Another name of `{path}`.") for other, path in SYNONYMS.items()]
    return "\n".join(
        [
            HEADER,
            *_table("Key", "Default", "Honoured", "What happens", rows=rows),
            ONLY,
            *_table("Key", "Values", rows=[*only, *absent]),
            EXTENSIONS,
            *_table("Key", "Default", "Meaning", rows=[*extensions, *others]),
            "",
        ]
    )


def _table(*titles: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (titles, ("---",) * len(titles), *rows)]


def _code(value: object) -> str:
    return "" if value in ("", None) else f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
