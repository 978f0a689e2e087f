"""The engine of the converters: what it carries over, and that it leaves nothing out in silence."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.rules import (
    ConversionError,
    Layout,
    Report,
    Rule,
    carry_over,
    conv,
    from_params,
    linear,
    norm,
    skip,
)
from oneformer_jax.errors import CheckpointError

RULES = [
    skip("block.{i}.index", "recomputed"),
    *linear("block.{i}.query", "block_{i}/qk", part=(0, 2)),
    *linear("block.{i}.key", "block_{i}/qk", part=(1, 2)),
    *conv("stem", "stem"),
    *norm("norm", "norm"),
    Rule("scale", "extra"),
]


def to_params(
    state: dict[str, np.ndarray], rules: list[Rule], shapes: dict[str, Any], *, optional: Any = (), where: str = ""
) -> tuple[dict[str, Any], Report]:
    return carry_over(state, rules).fit(shapes, optional=optional, where=where)


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


def test_parameters_go_back_to_where_they_came_from() -> None:
    state = arrays()
    params, report = to_params(state, RULES, template())
    back = from_params(params, RULES)
    assert set(back) == set(report.matched)
    for name, array in back.items():
        np.testing.assert_array_equal(array, state[name])


def test_maps_and_tokens() -> None:
    tokens = np.arange(2 * 9 * 4, dtype=np.float32).reshape(2, 9, 4)
    ours = Layout.TOKENS.to_ours(tokens)
    assert ours.shape == (2, 3, 3, 4)
    np.testing.assert_array_equal(Layout.TOKENS.to_theirs(ours), tokens)
    as_map = ours.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(Layout.MAP.to_ours(as_map), ours)
    np.testing.assert_array_equal(Layout.MAP.to_theirs(ours), as_map)
    assert Layout.TOKENS.to_ours(tokens[:, :8]).shape == (2, 8, 4)


def test_a_parameter_without_a_name_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="no name on the other side for norm/offset"):
        from_params({"norm": {"offset": np.zeros(4)}}, RULES)


def test_two_names_for_one_place_are_an_error() -> None:
    rules = [*RULES, Rule("old_scale", "extra")]
    with pytest.raises(CheckpointError, match="unexpected arrays old_scale"):
        to_params({**arrays(), "old_scale": np.zeros((), np.float32)}, rules, template())


def test_the_error_carries_everything_that_is_wrong() -> None:
    state = arrays() | {f"head.{i}": np.zeros(3) for i in range(20)} | {"norm.weight": np.zeros(5, np.float32)}
    del state["scale"]
    with pytest.raises(ConversionError) as raised:
        to_params(state, RULES, template(), where="weights.pth")
    report = raised.value.report
    assert report.missing == ("extra",)
    assert report.unexpected == tuple(f"head.{i}" for i in range(20))
    assert report.misfits == {"norm/scale": "(5,) instead of (4,)"}
    message = str(raised.value)
    assert message.startswith("weights.pth: no values for extra; unexpected arrays head.0, ")
    assert "and 12 more; shapes that do not fit: norm/scale (5,) instead of (4,)" in message


def test_a_report_as_text_and_as_json() -> None:
    _, report = to_params(arrays(), RULES, template())
    assert report.summary() == "8 arrays matched, 1 skipped"
    assert report.lines() == ["8 arrays matched, 1 skipped", "skipped (recomputed): block.10.index"]
    assert Report(**json.loads(json.dumps(report.to_json()))).skipped == report.skipped
    assert Report(absent=("a",), reshaped={"b": "bicubic"}, missing=("c",)).lines() == [
        "0 arrays matched, 1 absent, 1 reshaped, 1 missing",
        "reshaped (bicubic): b",
        "absent: a",
        "no values for c",
    ]


names = st.from_regex(r"[a-z]{1,4}(\.[0-9]{1,2})?\.[a-z]{1,4}", fullmatch=True)


@given(st.lists(names, unique=True, min_size=1, max_size=20), st.randoms())
def test_every_name_is_accounted_for(found: list[str], random: Any) -> None:
    state = {name: np.zeros(1) for name in found}
    rules = [random.choice((skip, norm))(name.rpartition(".")[0], name.replace(".", "/")) for name in found[::2]]
    flat = [rule for entry in rules for rule in (entry if isinstance(entry, list) else [entry])]
    carried = carry_over(state, flat)
    accounted = [*carried.skipped, *carried.unknown, *(name for path in carried.names.values() for name in path)]
    assert sorted(accounted) == sorted(found)
