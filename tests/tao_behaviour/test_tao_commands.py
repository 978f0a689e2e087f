"""Actions of TAO that do not exist here yet, and what needs no network; numbers as in test_tao_behaviour.py."""

import socket
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from oneformer_jax.actions.command_line import app
from oneformer_jax.data import task_text
from oneformer_jax.spec import Spec, unsupported_keys
from oneformer_jax.spec.support import notes

SpecOf = Callable[..., Spec]


@pytest.mark.parametrize(
    ("action", "overrides"),
    [
        ("gen_trt_engine", ["gen_trt_engine.tensorrt.workspace_size=512", "gen_trt_engine.trt_engine=model.engine"]),
        ("quantize", ["quantize.mode=static_ptq", "quantize.model_path=model"]),
    ],
)
def test_28_and_29_missing_actions_are_refused_by_name(spec_of: SpecOf, action: str, overrides: list[str]) -> None:
    """There these actions produce wrong results; here they are wrong usage so far, and their keys are named."""
    result = CliRunner().invoke(app, [action, "-e", "spec.yaml"])
    assert result.exit_code == 2
    assert f"No such command '{action}'" in result.stderr
    named = unsupported_keys(spec_of(*overrides))
    assert set(named) == {override.partition("=")[0] for override in overrides}
    assert all("not there yet" in notes()[key] for key in named)


def test_34_texts_are_tokenised_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the vocabulary is downloaded first; here a fresh tokenizer opens no connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    task_text._tokenizer.cache_clear()
    assert task_text.encode("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
