"""A study as its storage keeps it: what another process finds, and that it proposes what the first would have."""

from pathlib import Path

import pytest

from oneformer_jax.app.automl.parameter import Choice, Number, Relation
from oneformer_jax.app.automl.request import SearchSettings
from oneformer_jax.app.automl.study import Study
from oneformer_jax.errors import OneFormerError

SPACE = (Number("lr", 1e-6, 1e-2, log=True), Choice("kind", ("a", "b"), (1.0, 2.0)))
BASE = {"lr": 1e-4, "kind": "b"}


def open_study(file: Path | None, algorithm: str = "bayesian", max_trials: int = 9, **options: object) -> Study:
    settings = SearchSettings(algorithm, "maximize", max_trials, 9, seed=3)  # type: ignore[arg-type]
    return Study(settings, SPACE, BASE, file=file, **options)  # type: ignore[arg-type]


def run(study: Study, count: int) -> None:
    for _ in range(count):
        trial = study.propose()
        assert trial is not None
        if not trial.report(1, float(trial.values["lr"])):
            trial.complete(float(trial.values["lr"]))


@pytest.mark.slow
def test_a_study_in_pieces_proposes_what_one_in_a_whole_does(tmp_path: Path) -> None:
    whole = open_study(None)
    run(whole, 9)
    for _ in range(3):
        run(open_study(tmp_path / "study.db"), 3)
    again = open_study(tmp_path / "study.db")
    assert [record.values for record in again.records()] == [record.values for record in whole.records()]
    assert again.propose() is None
    assert len({str(record.values) for record in whole.records()}) == 9


def test_a_trial_that_another_process_left_is_taken_over_with_its_values_and_reports(tmp_path: Path) -> None:
    first = open_study(tmp_path / "study.db", "asha")
    run(first, 3)
    left = first.propose()
    assert left is not None
    left.report(1, 100.0)
    study = open_study(tmp_path / "study.db", "asha")
    (taken,) = study.unfinished()
    assert (taken.number, taken.values) == (3, left.values)
    assert not taken.report(1, -100.0)  # what was reported already stays as it was reported
    assert study.records()[3].scores == {1: 100.0}
    taken.complete(100.0)
    assert study.unfinished() == []
    following = study.propose()
    assert following is not None
    assert following.number == 4


def test_a_trial_is_stopped_at_a_rung_where_better_ones_were_and_never_at_its_end() -> None:
    study = open_study(None, "asha")
    for score in (5.0, 6.0, 7.0):
        trial = study.propose()
        assert trial is not None
        assert [trial.report(epoch, score + epoch) for epoch in range(1, 10)] == [False] * 9
        trial.complete(score + 9)
    trial = study.propose()
    assert trial is not None
    assert trial.report(1, 0.5)
    record = study.records()[3]
    assert (record.state, record.score, record.epochs) == ("stopped", 0.5, 1)


def test_the_baseline_is_not_stopped() -> None:
    study = open_study(None, "asha", run_baseline=True)
    baseline = study.propose()
    assert baseline is not None
    for score in (5.0, 6.0, 7.0):
        trial = study.propose()
        assert trial is not None
        trial.report(1, score)
    assert not baseline.report(1, 0.0)
    following = study.propose()
    assert following is not None
    assert following.report(1, 0.0)


def test_the_first_trial_is_the_spec_itself_unless_told_otherwise() -> None:
    for run_baseline in (True, False):
        study = open_study(None, run_baseline=run_baseline)
        run_or_complete = study.propose()
        assert run_or_complete is not None
        assert (run_or_complete.values == {}) == run_baseline
        record = study.records()[0]
        assert record.baseline == run_baseline
        assert (record.values == BASE) == run_baseline


def test_a_trial_without_possible_values_fails_and_the_next_one_is_proposed() -> None:
    space = (Choice("limit", (1, 50)), Number("size", 2, 20, step=1, relation=Relation(">", "limit")))
    study = Study(SearchSettings("random", "maximize", 12, 1), space, {"limit": 1, "size": 9})
    proposed = []
    while (trial := study.propose()) is not None:
        proposed.append(trial.values["limit"])
        trial.complete(0.0)
    states = [record.state for record in study.records()]
    assert len(states) == 12
    assert set(proposed) == {1}
    failed = [record for record in study.records() if record.state == "failed"]
    assert failed
    assert "no value in 2 .. 20 (> limit) is > 50" in failed[0].reason


def test_the_key_that_decides_is_the_important_one() -> None:
    space = (Number("decides", 0.0, 1.0), Number("idle", 0.0, 1.0))
    study = Study(SearchSettings("random", "minimize", 40, 1), space, {"decides": 0.5, "idle": 0.5})
    assert study.importance() == {}
    while (trial := study.propose()) is not None:
        trial.complete((trial.values["decides"] - 0.3) ** 2)
    best = study.best()
    assert best is not None
    assert best.score == min(record.score or 0.0 for record in study.records())
    assert study.importance()["decides"] > 0.8


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(200), b"[" * 9000])
def test_a_file_that_is_no_study_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(content)
    with pytest.raises(OneFormerError, match=r"(?s)study\.db: the study cannot be read: .*another results_dir"):
        Study(SearchSettings("random", "maximize", 3, 2), (), {}, file=file)
    assert file.read_bytes() == content
