"""What docs/features.md says is refused is refused, and by its name."""

import re
from pathlib import Path

import pytest

from oneformer_jax.app.spec import load_spec, unsupported_keys
from oneformer_jax.errors import SpecError

PAGE = Path(__file__).parents[3] / "docs" / "features.md"
REFUSED = re.findall(r"`([\w.]+=\w+)`", PAGE.read_text())


@pytest.mark.parametrize("override", REFUSED)
def test_what_the_page_says_is_refused(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(SpecError, match=rf"(?s){re.escape(key)}.*{value}"):
        load_spec(None, [override])


def test_what_the_page_says_of_encryption() -> None:
    assert unsupported_keys(load_spec(None, ["encryption_key=secret"])) == ["encryption_key"]
    assert len(REFUSED) == 9
