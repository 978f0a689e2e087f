"""A spec file from text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.errors import SpecError

Load = Callable[..., Spec]
Refusal = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, overrides)`: the spec of a file `run.yaml` with this text."""

    def from_text(text: str, overrides: Sequence[str] = ()) -> Spec:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_spec(path, overrides)

    return from_text


@pytest.fixture
def refusal(load: Load) -> Refusal:
    """`refusal(text, overrides)`: the message with which the spec is refused."""

    def message(text: str, overrides: Sequence[str] = ()) -> str:
        with pytest.raises(SpecError) as caught:
            load(text, overrides)
        return str(caught.value)

    return message
