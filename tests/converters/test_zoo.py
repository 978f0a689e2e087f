"""The page of published checkpoints is that of the table, which knows every file whose dilations are known."""

from pathlib import Path

from converters.published import DINAT
from converters.zoo import ENTRIES, page


def test_the_page_is_generated() -> None:
    assert (Path(__file__).parents[2] / "docs" / "model-zoo.md").read_text() == page()


def test_names_are_those_whose_dilations_are_known() -> None:
    assert {entry.file for entry in ENTRIES if entry.backbone == "dinat_l"} == set(DINAT)
