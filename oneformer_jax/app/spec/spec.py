"""The root of the spec: `Spec().train.optim.lr` has the path of its key, `train.optim.lr`."""

import re
from typing import Any, Literal

from pydantic import PrivateAttr, field_validator

from oneformer_jax.app.spec.action_keys import Evaluate, Export, Inference, Wandb
from oneformer_jax.app.spec.automl_keys import Automl
from oneformer_jax.app.spec.dataset_keys import Dataset
from oneformer_jax.app.spec.deploy_keys import GenTrtEngine, Quantize
from oneformer_jax.app.spec.field import Section, key, location_key, own_key, plain, section
from oneformer_jax.app.spec.model_keys import Model
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.app.spec.train_keys import Train
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.data.storage.addresses import REDACTED, redacted
from oneformer_jax.errors import SpecError


class Spec(Section):
    """A whole spec, every key with its value or default."""

    model_name: str = key(
        "",
        "Model name",
        "Name of the model for a generic entry point.",
        honoured=False,
        note="the model is always OneFormer",
        tao="read only by a generic entry point",
    )
    encryption_key: str = key(
        "",
        "Encryption key",
        "Key of encrypted checkpoints.",
        honoured=False,
        note="checkpoints are not encrypted, and the key is never stored",
        tao="never used, but stored in clear text",
    )
    results_dir: str = location_key("", "Results directory", "Folder in which each action has a folder of its own.")
    wandb: Wandb = section(Wandb, "Weights & Biases.")
    model: Model = section(Model, "The model.")
    dataset: Dataset = section(Dataset, "The data.")
    train: Train = section(Train, "Training.")
    evaluate: Evaluate = section(Evaluate, "Evaluation.")
    inference: Inference = section(Inference, "Inference.")
    export: Export = section(Export, "Export to ONNX.")
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine, "TensorRT engine.")
    quantize: Quantize = section(Quantize, "Quantization.")
    automl_policy: Literal["", "auto", "on", "off"] = own_key(
        "",
        "AutoML policy",
        "Whether the action train runs an AutoML search instead of a single training: auto (if a search can run),"
        " on or off; empty: off.",
        tao="an option of the tool that starts the training; auto by default",
    )
    automl: Automl = section(Automl, "AutoML: the search for good values of keys.")

    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("automl_policy", mode="before")
    @classmethod
    def _on_and_off(cls, value: Any) -> Any:
        """YAML reads the plain words on and off as truth values."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    def __eq__(self, other: object) -> bool:
        """Equal values; where they were written does not count."""
        return isinstance(other, Spec) and plain(self) == plain(other)

    def place(self, path: str) -> str:
        """Where the key, or the nearest section above it, is written: `file:line`, `command line: ...`, or ``."""
        while path and path not in self._places:
            path = path.rpartition(".")[0]
        return self._places.get(path, "")

    def to_dict(self) -> dict[str, Any]:
        """All keys as plain YAML data, to be kept or shown: without the encryption key and the secrets of addresses."""
        data: dict[str, Any] = redacted(plain(self))
        return data | {"encryption_key": REDACTED if self.encryption_key else ""}


def require(spec: Spec, *paths: str) -> None:
    """Raises SpecError that names every key of `paths` that has no value (blank, `???` or absent)."""
    missing = [path for path in paths if spec.value(path) in (None, "", ())]
    if missing:
        places = [f"{path} ({spec.place(path)})" if path in spec._places else path for path in missing]
        raise SpecError(f"no value for {', '.join(places)}", hint=f"set it in the spec or with {missing[0]}=...")


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


def dump_yaml(spec: Spec) -> str:
    """All keys as YAML that `load_spec` reads back to an equal spec (but for the redacted encryption key)."""
    return to_yaml(spec.to_dict())


def given_values(spec: Spec) -> dict[str, Any]:
    """The keys that the file or the command line gives a value, as plain YAML data without the encryption key.

    `to_yaml` of it, loaded again, is an equal spec in which the same keys are set.
    """
    data: dict[str, Any] = plain(spec.model_dump(exclude_unset=True))
    data.pop("encryption_key", None)
    return data


def withheld(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Data for a file that a child process reads: in place of an address with a password or a signature, an
    interpolation of an environment variable, named after the key; and the values of these variables."""
    secrets: dict[str, str] = {}

    def hide(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {name: hide(element, f"{path}_{name}") for name, element in value.items()}
        if isinstance(value, list):
            return [hide(element, f"{path}_{index}") for index, element in enumerate(value)]
        if not isinstance(value, str) or "${" in value or (kept := redacted(value)) == value:
            return value
        variable = re.sub(r"\W", "_", f"oneformer{path}").upper()
        secrets[variable] = value
        quoted = kept.replace("\\", "\\\\").replace("'", "\\'")
        return f"${{oc.env:{variable},'{quoted}'}}"

    return hide(data, ""), secrets


def to_yaml(data: dict[str, Any]) -> str:
    """Plain spec data, with its interpolations resolved, as YAML that `load_spec` reads back to the same data."""
    return yaml_text(literal(data))


def literal(value: Any) -> Any:
    """Text that looks like an interpolation is escaped: values are resolved already."""
    if isinstance(value, dict):
        return {name: literal(element) for name, element in value.items()}
    if isinstance(value, list):
        return [literal(element) for element in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
