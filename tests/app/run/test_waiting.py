"""Long work says what it is and how long it takes."""

import io
import time

import pytest

from oneformer_jax.app.run import waiting as module
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.waiting import Waiting, waiting


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(module, "SOON", 0.01)
    monkeypatch.setattr(module, "EVERY", 0.01)
    return io.StringIO()


def lines(screen: io.StringIO, at_least: int) -> list[str]:
    deadline = time.monotonic() + 10
    while screen.getvalue().count("\n") < at_least and time.monotonic() < deadline:
        time.sleep(0.005)
    return screen.getvalue().splitlines()


def test_where_there_is_no_terminal_lines_say_how_far_it_is(screen: io.StringIO) -> None:
    with waiting("evaluating [all]", Screen(file=screen), total=5) as done:
        assert lines(screen, 1)[0] == "evaluating [all]: 0/5 0:00:00"
        done(3)
        before = len(screen.getvalue().splitlines())
        assert lines(screen, before + 2)[-1] == "evaluating [all]: 3/5 0:00:00"
    ended = screen.getvalue()
    time.sleep(0.05)
    assert screen.getvalue() == ended


def test_what_goes_on_beside_it_is_said_while_it_does(screen: io.StringIO) -> None:
    shapes = ["compiling 2 of 3 shapes"]
    with waiting("evaluating", Screen(file=screen), total=5, aside=lambda: shapes[0]):
        assert lines(screen, 1)[0] == "evaluating: 0/5 0:00:00, compiling 2 of 3 shapes"
        shapes[0] = ""
        before = len(screen.getvalue().splitlines())
        assert lines(screen, before + 2)[-1] == "evaluating: 0/5 0:00:00"
    bar = io.StringIO()
    with waiting("evaluating", Screen(file=bar, force_terminal=True, width=100), aside=lambda: "compiling a shape"):
        pass
    assert "compiling a shape" in bar.getvalue()


def test_what_is_short_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    with Waiting("compiling", Screen(file=text)):
        pass
    assert text.getvalue() == ""


def test_a_terminal_shows_a_bar_that_goes(screen: io.StringIO) -> None:
    with waiting("exporting", Screen(file=screen, force_terminal=True, width=80)):
        pass
    assert "exporting" in screen.getvalue()
