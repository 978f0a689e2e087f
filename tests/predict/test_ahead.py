"""What threads compile before it is needed: in order, once, and not after the end."""

import threading

import pytest

from oneformer_jax.predict.ahead import Ahead


def test_what_is_needed_is_waited_for_and_counted() -> None:
    ahead, begin, done = Ahead(), threading.Event(), []

    def job(name: str) -> None:
        begin.wait(10)
        done.append(name)

    assert ahead.progress == (0, 0)
    with ahead.compiling({name: lambda name=name: job(name) for name in "abc"}):
        assert ahead.progress == (0, 3)
        begin.set()
        for name in "abc":
            ahead.wait_for(name)
            assert name in done
        ahead.wait_for("of another kind")
        assert ahead.progress == (3, 3)
    with ahead.compiling({"a": lambda: job("a")}):
        ahead.wait_for("a")
    assert sorted(done) == ["a", "b", "c"], "nothing is compiled twice"


def test_what_has_not_begun_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer_jax.predict.ahead.MOST_THREADS", 1)
    ahead, begun, end, done = Ahead(), threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        end.wait(10)

    with ahead.compiling({"slow": slow, "next": lambda: done.append("next")}):
        begun.wait(10)
    end.set()
    ahead.wait_for("next")
    assert not done


def test_whoever_waits_learns_what_went_wrong() -> None:
    ahead = Ahead()

    def fails() -> None:
        raise RuntimeError("no memory")

    with ahead.compiling({"a": fails}), pytest.raises(RuntimeError, match="no memory"):
        ahead.wait_for("a")
