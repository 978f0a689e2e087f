"""The schema and the spec template of each action in TAO's dialect, and the manifest that lists them.

One departure from the published schemas: `properties` holds nothing but properties. Keys beyond TAO's carry
`x_extension`, and no default or list names them. A template holds every key of an action with the default that TAO
publishes; short ones are for deployment.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from oneformer_jax.app.spec.dotted import put
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.tree import Branch, Leaf, children

MODEL = "oneformer"
VERSION = 1
ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")
# Every action's schema and template hold these too: quantize and evaluate read the settings of training.
SHARED_ACTIONS = ("train", "quantize")
MISSING = "???"  # to be filled in; a spec that still holds it counts as one without the key

SCORING = {
    "results_dir": "/results",
    "dataset.label_map": MISSING,
    "dataset.contiguous_id": True,
    "dataset.val.annotations": MISSING,
    "dataset.val.images": MISSING,
    "dataset.val.panoptic": MISSING,
    "dataset.val.batch_size": 1,
    "dataset.val.num_workers": 2,
    "dataset.test.images": MISSING,
    "dataset.test.batch_size": 1,
    "export.task": "semantic",
    "model.test.object_mask_threshold": 0.5,
    "model.test.overlap_threshold": 0.8,
    "model.sem_seg_head.norm": "GN",
    "model.sem_seg_head.num_classes": 133,
    "inference.trt_engine": MISSING,
    "evaluate.trt_engine": MISSING,
}
# The values of TAO's templates, which differ from the defaults here and there; paths are left to fill in.
DEPLOYMENT: Mapping[str, Mapping[str, Any]] = {
    "gen_trt_engine": {
        "results_dir": "/results",
        "gen_trt_engine.gpu_id": 0,
        "gen_trt_engine.onnx_file": MISSING,
        "gen_trt_engine.trt_engine": MISSING,
        "gen_trt_engine.batch_size": 1,
        "gen_trt_engine.verbose": True,
        "gen_trt_engine.tensorrt.data_type": "fp16",
        "gen_trt_engine.tensorrt.workspace_size": 8192,
        "gen_trt_engine.tensorrt.max_batch_size": 1,
        "gen_trt_engine.tensorrt.opt_batch_size": 1,
        "gen_trt_engine.tensorrt.min_batch_size": 1,
    },
    "evaluate": SCORING,
    "inference": SCORING,
}


def schema(action: str) -> dict[str, Any]:
    """The schema of one action: the shared sections and its own."""
    nodes = [node for node in children(Spec) if _belongs(node.name, action)]
    return {
        "type": "object",
        "properties": _properties(nodes),
        "default": _published_values(nodes, _default),
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


def template(action: str) -> dict[str, Any]:
    """The keys of one action with the values of TAO's template."""
    nodes = [node for node in children(Spec) if _belongs(node.name, action)]
    return _published_values(nodes, lambda leaf: leaf.template_default)


def own_template(action: str = "") -> str:
    """A spec in which every key of one action, or of all, stands at its default, those that TAO lacks too.

    It means what an empty spec means: a key whose default would mean something else once it is written is a comment.
    """
    nodes = [node for node in children(Spec) if not action or _belongs(node.name, action)]
    return "".join(f"{line}\n" for line in _template_lines(nodes, ""))


def _template_lines(nodes: Iterable[Leaf | Branch], indent: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Branch):
            yield f"{indent}{node.name}:"
            yield from _template_lines(node.children(), f"{indent}  ")
        elif node.default is None:
            yield f"{indent}# {node.name}:  # {node.field.description}"
        else:
            if node.key.unset:
                text = yaml_text({node.name: node.default}, flow=True).strip()
                yield f"{indent}# {text[1:-1]}  # unset: {node.key.unset}"
            else:
                yield from (indent + line for line in yaml_text({node.name: node.default}).splitlines())


def deployment_template(action: str) -> dict[str, Any]:
    """The few keys that building an engine, or running one, needs."""
    data: dict[str, Any] = {}
    for path, value in DEPLOYMENT[action].items():
        put(data, path, value)
    return data


def _belongs(name: str, action: str) -> bool:
    """Whether the section or key `name` at the top of a spec is part of what an action publishes."""
    return name not in ACTIONS or name == action or name in SHARED_ACTIONS


def _published_values(nodes: Iterable[Leaf | Branch], value: Callable[[Leaf], Any]) -> dict[str, Any]:
    """`value` of every key that TAO publishes, nested by section, without those for which it is None."""
    found = {
        node.name: value(node) if isinstance(node, Leaf) else _published_values(node.children(), value)
        for node in nodes
        if not node.extension
    }
    return {name: element for name, element in found.items() if element is not None}


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
        default=None if branch.extension else _published_values(nodes, _default),
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
    return _without_empty(_published_values(nodes, lambda leaf: _default(leaf) if leaf.key.popular else None))


def _default(leaf: Leaf) -> Any:
    return leaf.published_default


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _without_empty(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value != {}}


def _without_none(**attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
