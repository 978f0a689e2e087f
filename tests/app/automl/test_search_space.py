"""What a search may change: TAO's reading of the schema, our default, and every word of the dialect."""

import json
import math
import operator
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.app.automl.parameter import Choice, Number, Parameter, Relation
from oneformer_jax.app.automl.policy import train_schema
from oneformer_jax.app.automl.search_space import LEAVES, flatten, left_out, search_space
from oneformer_jax.app.spec import load_spec
from oneformer_jax.app.spec.published.bundle import bundle
from oneformer_jax.app.spec.published.schema import ACTIONS
from oneformer_jax.errors import OneFormerError, SpecError

TAO_DEFAULT = {
    "dataset.augmentation.test_min_size",
    "dataset.augmentation.test_max_size",
    "dataset.augmentation.train_max_size",
    "train.optim.lr",
    "train.optim.backbone_multiplier",
    "train.optim.momentum",
    "train.optim.weight_decay",
}
TAO_TYPES = {"int", "integer", "float", "ordered_int", "bool", "string", "ordered", "categorical"}
PARAMETERS = "automl.custom_param_ranges"
RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def tao_reading(schema: dict[str, Any], asked: frozenset[str] = frozenset()) -> dict[str, tuple[Any, ...]]:
    """The parameters that NVIDIA's open tao-automl finds in a schema, with the ranges it draws from.

    Its rules in our words: leaves are what has no `properties`; what is no mapping is passed over. Of those with a type
    it can draw, whose `automl_enabled` is not false and which the default spec holds, the ones that are asked for, else
    the ones with `automl_enabled` true. A number without both bounds lies between a tenth and ten times its default
    (whole numbers: half and twice), an infinite upper bound is the default.
    """
    found = {}
    spec = dict(leaves_of(schema["default"]))
    for path, leaf in tao_leaves(schema["properties"]):
        enabled = leaf.get("automl_enabled")
        if leaf.get("type") not in TAO_TYPES or enabled is False or path not in spec:
            continue
        if path in asked if asked else str(enabled).upper() == "TRUE":
            options = [leaf.get(name) for name in ("enum", "option_weights", "math_cond", "depends_on", "parent_param")]
            found[path] = (leaf["type"], *tao_range(leaf), leaf.get("default"), *options)
    return found


def tao_leaves(properties: dict[str, Any], prefix: str = "") -> Any:
    for name, leaf in properties.items():
        if isinstance(leaf, dict):
            if "properties" in leaf:
                yield from tao_leaves(leaf["properties"], f"{prefix}{name}.")
            else:
                yield prefix + name, leaf


def leaves_of(values: dict[str, Any], prefix: str = "") -> Any:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def tao_range(leaf: dict[str, Any]) -> tuple[Any, Any]:
    if leaf["type"] not in ("int", "integer", "float"):
        return (None, None)
    low, high, default = leaf.get("minimum"), leaf.get("maximum"), leaf.get("default", 0)
    if low is None or high is None:
        factor = 10 if leaf["type"] == "float" else 2
        return default / factor, default * factor
    return low, default if math.isinf(high) else high


@pytest.mark.slow
def test_tao_finds_the_same_parameters_and_ranges_in_our_schemas_as_in_the_published_ones(shared: Path) -> None:
    ours = bundle()
    for action in ACTIONS:
        file = f"schemas/{action}.schema.json"
        published = json.loads((shared / "reference" / "tao_skill" / file).read_text())
        own = json.loads(ours[file])
        found = tao_reading(published)
        assert tao_reading(own) == found
        every = frozenset(path for path, _ in tao_leaves(published["properties"]))
        assert tao_reading(own, every) == tao_reading(published, every)
        if action == "train":
            assert found.keys() == TAO_DEFAULT
            assert found["dataset.augmentation.test_min_size"][:3] == ("int", 32, 800)
            assert len(tao_reading(own, every)) > 100


def space(*overrides: str) -> dict[str, Parameter]:
    spec = load_spec(None, overrides)
    return {parameter.path: parameter for parameter in search_space(spec, train_schema(None))}


@pytest.mark.tao(37)
def test_the_default_is_taos_without_what_cannot_be_searched_honestly() -> None:
    alone = left_out(flatten(train_schema(None)["properties"]))
    assert alone.keys() == {path for path in TAO_DEFAULT if path.startswith("dataset.augmentation")}
    assert set(space()) == TAO_DEFAULT - alone.keys()
    lr = space()["train.optim.lr"]
    assert isinstance(lr, Number)
    assert lr.log
    assert lr.low <= LEAVES["train.optim.lr"].default <= lr.high <= 0.01


def test_asked_for_by_name_everything_that_counts_can_be_searched() -> None:
    found = space("automl.add_hyperparameters=[dataset.augmentation.test_min_size,train.clip_gradients.enabled]")
    assert list(found)[-2:] == ["dataset.augmentation.test_min_size", "train.clip_gradients.enabled"]
    assert set(space("automl.hyperparameters=[model.one_former.dropout]")) == {"model.one_former.dropout"}
    assert "train.optim.momentum" not in space("automl.remove_hyperparameters=[train.optim.momentum]")
    assert "train.optim.gamma" in space(f"{PARAMETERS}={{train.optim.gamma: {{valid_max: 0.5}}}}")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["automl.hyperparameters=[train.optim.lrr]"], "there is no key train.optim.lrr.*did you mean train.optim.lr"),
        (["automl.add_hyperparameters=[train.optim.steps]"], "train.optim.steps is a list, which is not searched"),
        (
            ["automl.add_hyperparameters=[train.optim.monitor_name]"],
            "train.optim.monitor_name cannot be searched: it has only one",
        ),
        (["automl.add_hyperparameters=[export.task]"], "no key export.task|export.task cannot be searched"),
        (["automl.add_hyperparameters=[quantize.mode]"], "quantize.mode cannot be searched"),
        (["automl.add_hyperparameters=[train.cudnn.benchmark]"], "it is not honoured"),
        (["automl.hyperparameters=[train.seed]", "automl.remove_hyperparameters=[train.seed]"], "nothing to search"),
        ([PARAMETERS + "={train.optim.lr: {min: 1}}"], "train.optim.lr: min is not one of valid_min, valid_max"),
        ([PARAMETERS + "={train.optim.lr: {valid_max: x}}"], "valid_max is 'x', expected a number"),
        ([PARAMETERS + "={train.optim.lr: {valid_max: 2.0}}"], "would try 2.0, but the key accepts number >= 0"),
        ([PARAMETERS + "={train.optim.lr: {valid_min: 0.0}}"], "no range from 1e-08 to 0.01 over|would try|xx"),
        ([PARAMETERS + "={train.optim.lr: {valid_min: 0.1, valid_max: 0.01}}"], "no range from 0.1 to 0.01"),
        ([PARAMETERS + "={train.precision: {option_weights: [1]}}"], "expected 2 numbers"),
        ([PARAMETERS + "={train.precision: {valid_options: [fp8]}}"], "would try 'fp8', but the key accepts one of"),
        ([PARAMETERS + "={train.optim.lr: {depends_on: '= a'}}"], "depends_on is '= a', expected one of > >= < <="),
        ([PARAMETERS + "={train.seed: {math_cond: '/ x'}}"], "the condition '/ x' is not '/ f'"),
        ([PARAMETERS + "={train.seed: {math_cond: '^ 2', valid_min: 5, valid_max: 7}}"], "no power of 2 from 5 to 7"),
        (
            [
                PARAMETERS + "={dataset.min_scale: {depends_on: '< dataset.max_scale'}, "
                "dataset.max_scale: {depends_on: '> dataset.min_scale'}}"
            ],
            "depend on each other",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(overrides: list[str], expected: str) -> None:
    if "xx" in expected:  # the condition of the key, > 0, moves the end a little
        assert space(*overrides)["train.optim.lr"].low > 0  # type: ignore[union-attr]
        return
    with pytest.raises(SpecError, match=f"(?s){expected}"):
        space(*overrides)


def drawn(parameters: list[Parameter], base: dict[str, Any], seed: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial, values = study.ask(), dict(base)
    for parameter in parameters:
        values[parameter.path] = parameter.value(trial, values)
    return values


def test_conditions_of_the_dialect() -> None:
    found = space(
        f"{PARAMETERS}={{train.seed: {{math_cond: '^ 2', valid_min: 3, valid_max: 70}}, "
        "dataset.augmentation.train_max_size: {math_cond: '/ 32', valid_min: 100, valid_max: 200}, "
        "dataset.augmentation.test_min_size: {depends_on: dataset.augmentation.test_max_size, "
        "math_cond: '< depends_on'}, dataset.augmentation.test_max_size: {valid_min: 500, valid_max: 900}, "
        "train.optim.lr_scheduler: {option_weights: [1, 3]}, "
        "train.pretrained_backbone: {valid_options: 'a.pth, b.pth'}}"
    )
    assert found["train.seed"].options == (4, 8, 16, 32, 64)
    sizes = {
        drawn([found["dataset.augmentation.train_max_size"]], {}, seed)["dataset.augmentation.train_max_size"]
        for seed in range(40)
    }
    assert sizes == {128, 160, 192}
    assert found["train.pretrained_backbone"].options == ("a.pth", "b.pth")
    assert list(found).index("dataset.augmentation.test_min_size") > list(found).index(
        "dataset.augmentation.test_max_size"
    )
    for seed in range(40):
        values = drawn(list(found.values()), {}, seed)
        assert values["dataset.augmentation.test_min_size"] < values["dataset.augmentation.test_max_size"]
        for path, parameter in found.items():
            if isinstance(parameter, Choice):
                assert values[path] in parameter.options
            else:
                assert parameter.low <= values[path] <= parameter.high


def test_options_come_as_often_as_their_weights_say() -> None:
    choice = Choice("a", ("never", "seldom", "often"), (0.0, 1.0, 3.0))
    counts = Counter(drawn([choice], {}, seed)["a"] for seed in range(400))
    assert counts.keys() == {"seldom", "often"}
    assert 0.67 < counts["often"] / 400 < 0.83
    study = optuna.create_study()
    study.enqueue_trial({"a": choice.nearest("seldom")})
    assert choice.value(study.ask(), {}) == "seldom"


@given(
    low=st.floats(0.001, 10),
    width=st.floats(0, 10),
    log=st.booleans(),
    sign=st.sampled_from(sorted(RELATIONS)),
    limit=st.floats(-5, 25),
    seed=st.integers(0, 100),
)
def test_a_number_is_in_its_range_and_on_the_right_side_of_the_other(
    low: float, width: float, log: bool, sign: str, limit: float, seed: int
) -> None:
    number = Number("a", low, low + width, log, relation=Relation(sign, "b"))
    try:
        value = drawn([number], {"b": limit}, seed)["a"]
    except OneFormerError:
        assert not RELATIONS[sign](low + width if sign[0] == ">" else low, limit + (1e-4 if sign[0] == ">" else -1e-4))
        return
    assert low <= value <= low + width
    assert RELATIONS[sign](value, limit)


@given(
    low=st.integers(-5, 50),
    steps=st.integers(0, 9),
    step=st.integers(1, 7),
    sign=st.sampled_from(sorted(RELATIONS)),
    limit=st.integers(-9, 120),
    seed=st.integers(0, 30),
)
def test_whole_numbers_stay_on_their_grid(low: int, steps: int, step: int, sign: str, limit: int, seed: int) -> None:
    grid = range(low, low + steps * step + 1, step)
    number = Number("a", low, low + steps * step, step=step, relation=Relation(sign, "b"))
    allowed = [value for value in grid if RELATIONS[sign](value, limit)]
    try:
        value = drawn([number], {"b": limit}, seed)["a"]
    except OneFormerError:
        assert len(allowed) <= 1  # the strict signs keep a whole step of distance
        return
    assert isinstance(value, int)
    assert value in allowed
    assert number.nearest(value) in grid
