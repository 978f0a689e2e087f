"""The engine of the converters: what it carries over, and that it leaves nothing out in silence."""

from typing import Any

import numpy as np
import pytest

from converters.rules import Rule, conv, linear, norm, skip, to_params
from oneformer_jax.errors import CheckpointError

RULES = [
    skip("block.{i}.index", "recomputed"),
    *linear("block.{i}.query", "block_{i}/qk", part=(0, 2)),
    *linear("block.{i}.key", "block_{i}/qk", part=(1, 2)),
    *conv("stem", "stem"),
    *norm("norm", "norm"),
    Rule("scale", "extra"),
]


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "block.10.query.weight": (2, 3),
        "block.10.key.weight": (2, 3),
        "block.10.query.bias": (2,),
        "block.10.key.bias": (2,),
        "stem.weight": (4, 3, 2, 5),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "scale": (),
        "block.10.index": (7,),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def template() -> dict[str, Any]:
    return {
        "block_10": {"qk": {"kernel": np.zeros((3, 4), np.float32), "bias": np.zeros(4, np.float32)}},
        "stem": {"kernel": np.zeros((2, 5, 3, 4), np.float32)},
        "norm": {"scale": np.zeros(4, np.float32), "bias": np.zeros(4, np.float32)},
        "extra": np.zeros((), np.float32),
    }


def test_values_arrive_in_our_layout() -> None:
    state = arrays()
    params, report = to_params(state, RULES, template())
    x = np.ones(3, np.float32)
    both = np.concatenate([state["block.10.query.weight"] @ x, state["block.10.key.weight"] @ x])
    np.testing.assert_allclose(x @ params["block_10"]["qk"]["kernel"], both, rtol=1e-6)
    assert params["stem"]["kernel"][1, 4, 2, 3] == state["stem.weight"][3, 2, 1, 4]
    np.testing.assert_array_equal(params["norm"]["scale"], state["norm.weight"])
    assert params["extra"].shape == ()
    assert report.skipped == {"block.10.index": "recomputed"}
    assert set(report.matched) == set(state) - set(report.skipped)


@pytest.mark.parametrize("lost", ["norm.bias", "block.10.key.weight", "scale"])
def test_missing_is_an_error(lost: str) -> None:
    state = arrays()
    del state[lost]
    with pytest.raises(CheckpointError, match="no values for"):
        to_params(state, RULES, template(), where="weights.pth")


@pytest.mark.parametrize("extra", ["head.weight", "block.11.query.weight", "block.x.index"])
def test_unexpected_is_an_error(extra: str) -> None:
    with pytest.raises(CheckpointError, match=rf"weights.pth: unexpected arrays {extra}"):
        to_params({**arrays(), extra: np.zeros(3)}, RULES, template(), where="weights.pth")


def test_another_shape_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"norm/scale \(5,\) instead of \(4,\)"):
        to_params({**arrays(), "norm.weight": np.zeros(5, np.float32)}, RULES, template())


def test_only_a_whole_optional_part_may_be_absent() -> None:
    state = arrays()
    del state["norm.weight"]
    with pytest.raises(CheckpointError):
        to_params(state, RULES, template(), optional=["norm"])
    del state["norm.bias"]
    params, report = to_params(state, RULES, template(), optional=["norm"])
    assert report.absent == ("norm",)
    assert "norm" not in params
