"""A file about a backbone, for weights that do not hold all of it: a spec, or the keys of one section. Free of JAX."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from oneformer_jax.app.spec.backbone_keys import KEYS_OF_RADIO, SECTIONS, Backbone, Radio
from oneformer_jax.app.spec.field import Section, plain, subsection
from oneformer_jax.app.spec.source import read_yaml
from oneformer_jax.errors import SpecError


def read_backbone_file(path: Path) -> dict[str, Any]:
    """What a file (YAML or JSON) says of a backbone, by the keys of its section, for example of `model.backbone.dinat`;
    `name`, that of the backbone, may say which section. Of a whole spec its `model.backbone` counts. Keys of no section
    stay as they are.

    Raises SpecError: unreadable, an unknown backbone, or a value that its key does not accept.
    """
    source, where = read_yaml(path), str(path)
    if source.problems:
        raise SpecError("; ".join(problem.what for problem in source.problems), where=where)
    facts = _of_spec(source.data) if "model" in source.data else {str(k): value for k, value in source.data.items()}
    name = facts.pop("name", None)
    if name is not None and name not in SECTIONS:
        raise SpecError(f"name is {name!r:.60}, expected one of {', '.join(SECTIONS)}", where=where)
    kinds = [subsection(Backbone.model_fields[section]) for section in SECTIONS.values()]
    kind = subsection(Backbone.model_fields[SECTIONS[name]]) if name else None
    kind = kind or max(filter(None, kinds), key=lambda kind: _likeness(kind, facts))
    known = {key: value for key, value in facts.items() if key in kind.model_fields}
    try:
        section = kind.model_validate(known)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise SpecError("; ".join(wrong), where=where) from error
    others = {key: value for key, value in facts.items() if key not in known}
    if isinstance(section, Radio):
        told = [name for name, keys in KEYS_OF_RADIO.items() if known.keys() & set(keys)]
        return others | {name: section.fields[name] for name in told}
    return others | {key: plain(getattr(section, key)) for key in known}


def _of_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """What a spec says of its backbone, with the name."""
    model = spec["model"]
    backbone = model.get("backbone") if isinstance(model, dict) else None
    if not isinstance(backbone, dict):
        return {}
    name = backbone.get("name", Backbone.model_fields["name"].default)
    section = backbone.get(SECTIONS.get(name, ""))
    return {"name": name, **(section if isinstance(section, dict) else {})}


def _likeness(kind: type[Section], facts: dict[str, Any]) -> tuple[int, bool]:
    """How many of the facts are keys of a section, and whether it accepts them."""
    known = {key: value for key, value in facts.items() if key in kind.model_fields}
    try:
        kind.model_validate(known)
    except ValidationError:
        return len(known), False
    return len(known), True
