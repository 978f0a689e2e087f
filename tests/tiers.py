"""Which tests run, and with how many examples: `--tier=fast|test|prove|gpu`.

`fast` leaves out what is marked `slow`; `test` is everything but what is marked `prove`; `prove` runs that and, once
more, what is marked `again` and every property that hypothesis draws examples for. `gpu` runs what is marked `gpu`, on
the GPUs of a machine that has some; in `make prove` the same tests compare the CPU with itself.
"""

import os

import hypothesis
import pytest

MARKERS = {
    "slow": "takes seconds; not in `make test-fast`",
    "prove": "takes minutes, or proves by the thousand; only in `make prove`, with a small sibling in `make test`",
    "gpu": "compares a GPU with the CPU: `make gpu`, and in `make prove` the CPU with itself",
    "again": "in `make test`, and in `make prove` again with more examples or with optimised programs",
    "optimised": "needs what optimisation does to the last bits",
    "tao(number, ..., case='')": "shows these of tests/tao_behaviour/behaviour.yaml, in the case of this name",
}
EXAMPLES = {"fast": 0.2, "test": 1.0, "prove": 20.0, "gpu": 1.0}  # times the number that a property asks for
# A slow machine is not a failure, and compilation makes the first example slow on any.
PROFILE = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}

SHOWN = pytest.StashKey[set[int]]()  # the numbered behaviours that any collected test shows


def tier() -> str:
    """The tier that runs."""
    return os.environ.get("ONEFORMER_TIER", "test")


def examples(count: int) -> int:
    """How many examples of a property this tier draws where `make test` draws `count`."""
    return max(10, round(count * EXAMPLES[tier()]))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers")
    group.addoption("--tier", choices=list(EXAMPLES), default="test", help="which tests run")
    group.addoption("--tao", type=int, action="append", metavar="NUMBER", help="only tests that show this behaviour")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    os.environ["ONEFORMER_TIER"] = config.getoption("--tier")
    hypothesis.settings.register_profile("tier", max_examples=examples(100), **PROFILE)
    hypothesis.settings.load_profile("tier")


def belongs(item: pytest.Item, tier: str) -> bool:
    """Whether a test is of a tier."""
    on_gpu = item.get_closest_marker("gpu") is not None
    if tier == "gpu":
        return on_gpu
    proved = on_gpu or item.get_closest_marker("prove") is not None
    if tier == "prove":
        drawn = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        return proved or drawn or item.get_closest_marker("again") is not None
    return not proved and not (tier == "fast" and item.get_closest_marker("slow"))


def shown(item: pytest.Item) -> set[int]:
    """The numbers of the behaviours that a test shows."""
    markers = [marker for marker in item.iter_markers("tao") if marker.kwargs.get("case", "") in item.name]
    return {number for marker in markers for number in marker.args}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[SHOWN] = {number for item in items for number in shown(item)}
    numbers = set(config.getoption("--tao") or ())
    chosen = {item for item in items if belongs(item, tier()) and (not numbers or numbers & shown(item))}
    if left := [item for item in items if item not in chosen]:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item in chosen]
