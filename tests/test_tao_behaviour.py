"""What goes wrong in TAO's OneFormer, numbered: tao_behaviour/behaviour.yaml. `pytest --tao=7` shows number 7."""

from pathlib import Path

import pytest
import yaml
from tiers import SHOWN

ROWS = yaml.safe_load((Path(__file__).parent / "tao_behaviour" / "behaviour.yaml").read_text())


def test_every_number_stands_once_with_what_holds_there_and_here() -> None:
    assert [row["number"] for row in ROWS] == list(range(1, 43))
    for row in ROWS:
        assert row["there"]
        assert row["here"]
        assert row.keys() <= {"number", "there", "here", "later"}


def test_every_number_is_shown_by_a_test(pytestconfig: pytest.Config) -> None:
    shown = pytestconfig.stash[SHOWN]
    if pytestconfig.args_source is pytest.Config.ArgsSource.ARGS:  # then it is a part of the suite
        assert shown <= set(range(1, 43))
    else:
        assert shown == set(range(1, 43))
