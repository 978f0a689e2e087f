"""Spec data by dotted keys (`train.optim.lr` in `{"train": {"optim": {"lr": 1e-4}}}`): reading and changing it.

What changes it before it is checked: overrides of the command line (`key=value`, `+key=value`, `~key`, with values in
YAML), and the other names under which a key is accepted.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from oneformer_jax.app.spec.source import SECRET_NAME, OtherBase, Problem, Source, describe, is_secret, parse_value
from oneformer_jax.data.storage.addresses import REDACTED, redacted

Data = dict[Any, Any]
ASSIGNMENT = re.compile(r"\+{0,2}(?P<key>[^\s=~+][^\s=]*)=(?P<value>.*)", re.DOTALL)
REFERENCE = re.compile(r"\$\{\s*(\.*)([\w.]+)")
REMOVAL = re.compile(r"~(?P<key>[^\s=]+)")
# The first three names are those of TAO's guide, the fourth is where TAO's code looks for the key, the others are those
# of TAO's AutoML settings.
SYNONYMS = {
    "model.task_toggling.semantic_on": "model.test.semantic_on",
    "model.task_toggling.instance_on": "model.test.instance_on",
    "model.task_toggling.panoptic_on": "model.test.panoptic_on",
    "dataset.augmentation.cutmix_prob": "dataset.cutmix_prob",
    "automl.automl_max_recommendations": "automl.max_recommendations",
    "automl.num_recommendations": "automl.max_recommendations",
    "automl.automl_hyperparameters": "automl.hyperparameters",
    "automl.automl_reduction_factor": "automl.reduction_factor",
    "automl.automl_max_concurrent": "automl.max_concurrent",
    "automl.automl_delete_intermediate_ckpt": "automl.delete_intermediate_ckpt",
}


def nested(path: str, value: Any) -> Data:
    """Data that holds nothing but `value` at a dotted key."""
    for name in reversed(path.split(".")):
        value = {name: value}
    found: Data = value
    return found


def get(data: Any, path: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def put(data: Data, path: str, value: Any) -> None:
    """Sets a dotted key in place of what it had; sections are made as needed."""
    *parents, name = path.split(".")
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[name] = value


def remove(data: Data, path: str) -> None:
    """Takes a dotted key out, if it is there."""
    parent, _, name = path.rpartition(".")
    section = get(data, parent) if parent else data
    if isinstance(section, dict):
        section.pop(name, None)


def merge(data: Data, other: Mapping[Any, Any]) -> None:
    """`other` over `data`, section by section."""
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(data.get(name), dict):
            merge(data[name], value)
        else:
            data[name] = value


def flat(data: Mapping[str, Any], leaves: Collection[str], prefix: str = "") -> dict[str, Any]:
    """The values by dotted key; those at `leaves` are whole, even if they are mappings."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        path = prefix + name
        is_section = isinstance(value, Mapping) and path not in leaves
        found |= flat(value, leaves, f"{path}.") if is_section else {path: value}
    return found


def steps_to_resolve(data: Data) -> int:
    """How many interpolations are followed where each key is read once; `a: ${b}${b}` follows those of b twice."""
    texts: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict | list | tuple):
            for name, element in value.items() if isinstance(value, dict) else enumerate(value):
                walk(element, f"{path}.{name}")
        elif isinstance(value, str) and "${" in value:
            texts[path] = value

    walk(data, "")
    steps: dict[str, int] = {}

    def count(path: str) -> int:
        if path not in steps:
            steps[path] = 1  # of one that leads back to itself, which is told when it is followed
            for dots, name in REFERENCE.findall(texts[path]):
                base = path.rsplit(".", len(dots))[0] if dots else ""
                goal = f"{base}.{name}"
                steps[path] += sum(count(other) for other in texts if other == goal or other.startswith(f"{goal}."))
        return steps[path]

    return sum(map(count, texts))


def apply(source: Source, text: str) -> None:
    """Changes `source` by one override; `+` makes no difference, `~key` takes a key back to its default."""
    place = f"command line: {without_secrets(text)}"
    if match := REMOVAL.fullmatch(text):
        remove(source.data, SYNONYMS.get(match["key"], match["key"]))
        return
    match = ASSIGNMENT.fullmatch(text)
    if match is None:
        hint = "write key=value, or ~key to return a key to its default"
        source.problems.append(Problem("not an override", place, hint))
        return
    if "" in match["key"].split("."):
        source.problems.append(Problem("not the name of a key: nothing stands beside a dot", place))
        return
    try:
        value = parse_value(match["value"]) if match["value"].strip() else ""  # not null, the default of any key
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        hint = "quote text that holds : # [ ] { } or starts with a special character"
        why = error.problem if isinstance(error, OtherBase) and not is_secret(match["key"]) else ""
        what = f"{match['key']}: {why or 'the value is not valid YAML'}"
        source.problems.append(Problem(what, place, "" if why else hint))
        return
    key = SYNONYMS.get(match["key"], match["key"])
    if blocked := _blocked(source.data, key):
        what = f"{match['key']}: {blocked} is written as a value in the file, not as a section"
        source.problems.append(Problem(what, place, "write the section out, or override it as a whole"))
        return
    merge(source.data, nested(key, value))  # a mapping into the section that is there, as a spec file would be
    _note(source.places, key, value, place)


def without_secrets(text: str) -> str:
    """An override as it may be written down: without the value of a secret key, and with addresses as they are shown.

    Of what is no override but names such a key, only what stands before the name is kept."""
    match = ASSIGNMENT.fullmatch(text)
    if match is not None:
        return text[: match.start("value")] + REDACTED if is_secret(match["key"]) else redacted(text)
    name = SECRET_NAME.search(text)
    return text[: name.end()] + REDACTED if name else redacted(text)


def rename_synonyms(source: Source) -> None:
    """Moves values to the names of the spec. Two different values of one key are a problem."""
    for other, path in SYNONYMS.items():
        value = _pop(source.data, other)
        if value is None or _blocked(source.data, path):  # not there, or under a plain value, which is reported later
            continue
        present = get(source.data, path)
        if present not in (value, None):
            what = f"{other} is {describe(value, other)} but {path} is {describe(present, path)}"
            hint = "these are two names of one key: keep one"
            source.problems.append(Problem(what, source.places.get(other, ""), hint))
        put(source.data, path, value)
        source.places[path] = source.places.get(other, "")


def _blocked(data: dict[Any, Any], key: str) -> str:
    """The section above a key that holds a plain value or an interpolation, "" when there is none."""
    names = key.split(".")
    for end, name in enumerate(names[:-1], start=1):
        if data.get(name) is None:
            return ""
        data = data[name]
        if not isinstance(data, dict):
            return ".".join(names[:end])
    return ""


def _note(places: dict[str, str], key: str, value: Any, place: str) -> None:
    """Every key that the override sets is found on the command line from now on."""
    places[key] = place
    for end in range(key.count(".")):
        places.setdefault(key.rsplit(".", end + 1)[0], place)
    if isinstance(value, dict):
        for name, element in value.items():
            _note(places, f"{key}.{name}", element, place)


def _pop(data: dict[Any, Any], path: str) -> Any:
    """Takes a dotted key out of nested data, with the section that it leaves empty; None when it is not there."""
    name, _, rest = path.partition(".")
    if not rest:
        return data.pop(name, None)
    child = data.get(name)
    if not isinstance(child, dict):
        return None
    value = _pop(child, rest)
    if value is not None and not child:
        del data[name]
    return value
