"""The schema of each action in TAO's dialect, and the manifest that lists them.

One departure from the published files: `properties` holds nothing but properties. Keys beyond TAO's carry
`x_extension`, and no default or list names them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from oneformer_jax.app.spec.field import Branch, Leaf, children
from oneformer_jax.app.spec.published.template import ACTIONS, belongs, published_values
from oneformer_jax.app.spec.spec import Spec

MODEL = "oneformer"
VERSION = 1


def schema(action: str) -> dict[str, Any]:
    """The schema of one action: the shared sections and its own."""
    nodes = [node for node in children(Spec) if belongs(node.name, action)]
    return {
        "type": "object",
        "properties": _properties(nodes),
        "default": published_values(nodes, _default),
        "required": [node.name for node in nodes if isinstance(node, Branch) and _required(node)],
        **_search_lists(_published(children(Spec))),
        "popular": _popular_defaults(),
        "x_tao_schema": {
            "action": action,
            "schema_action": action,
            "model": MODEL,
            "core_module": MODEL,
            "network_arch": MODEL,
            "schema_version": VERSION,
            "source": "oneformer_jax.app.spec",
        },
    }


def manifest() -> dict[str, Any]:
    """Which files describe which action."""
    return {
        "model": MODEL,
        "network_arch": MODEL,
        "schema_version": VERSION,
        "automl_enabled": True,
        "failures": {},
        "actions": {
            action: {
                "path": f"schemas/{action}.schema.json",
                "spec_template": f"references/spec_template_{action}.yaml",
                "schema_action": action,
                "core_module": MODEL,
                "popular": _popular_defaults(),
                **_search_lists(_published(children(Spec))),
            }
            for action in ACTIONS
        },
    }


def _properties(nodes: Iterable[Leaf | Branch]) -> dict[str, Any]:
    return {node.name: _key(node) if isinstance(node, Leaf) else _collection(node) for node in nodes}


def _key(leaf: Leaf) -> dict[str, Any]:
    facts = leaf.key
    return _without_none(
        type=leaf.type,
        default=None if leaf.published_default == {} else leaf.published_default,
        title=leaf.field.title,
        description=leaf.field.description,
        minimum=facts.minimum,
        maximum=facts.maximum,
        enum=list(leaf.enum) or None,
        pattern=leaf.pattern or None,
        math_cond=facts.math_cond or None,
        automl_enabled=leaf.automl,
        popular=facts.popular or None,
        x_extension=facts.extension or None,
    )


def _collection(branch: Branch) -> dict[str, Any]:
    """A section: its texts and defaults, what a search may not change, and which of its keys matter most."""
    nodes = list(branch.children())
    return _without_none(
        type="collection",
        default=None if branch.extension else published_values(nodes, _default),
        title=branch.field.title,
        description=branch.field.description,
        automl_enabled=False,
        popular=[node.name for node in nodes if _popular(node)] or None,
        required=_required(branch) or None,
        properties=_properties(nodes),
        x_extension=branch.extension or None,
        **_search_lists(node for node in nodes if not node.extension),
    )


def _search_lists(nodes: Iterable[Leaf | Branch]) -> dict[str, list[str]]:
    """The dotted names that a search varies, and those that it leaves alone (sections and lists)."""
    offered: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for node in nodes:
        offered[node.automl if isinstance(node, Leaf) else False].append(node.path)
    lists = {"automl_default_parameters": offered[True], "automl_disabled_parameters": offered[False]}
    return {name: sorted(paths) for name, paths in lists.items() if paths}


def _published(nodes: Iterable[Leaf | Branch]) -> Iterator[Leaf | Branch]:
    """The sections and keys that TAO publishes, at every depth."""
    for node in nodes:
        if not node.extension:
            yield node
            if isinstance(node, Branch):
                yield from _published(node.children())


def _required(branch: Branch) -> list[str]:
    """The keys of a section without which it is not complete."""
    return [node.name for node in branch.children() if isinstance(node, Leaf) and node.key.required]


def _popular(node: Leaf | Branch) -> bool:
    """Whether TAO counts the key, or a key below the section, among those that matter most."""
    return node.key.popular if isinstance(node, Leaf) else any(leaf.key.popular for leaf in node.leaves())


def _popular_defaults() -> dict[str, Any]:
    """The defaults of the keys that matter most, nested by section."""
    nodes = [node for node in children(Spec) if _popular(node)]
    return _without_empty(published_values(nodes, lambda leaf: _default(leaf) if leaf.key.popular else None))


def _default(leaf: Leaf) -> Any:
    return leaf.published_default


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _without_empty(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value != {}}


def _without_none(**attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
