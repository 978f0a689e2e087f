"""A whole search, with trainings that take a fraction of a second (stand_in.py) in processes of their own."""

import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import stand_in
import yaml
from clusters import ended

import oneformer_jax.app.actions.automl as action
from oneformer_jax.app.automl.request import search_run
from oneformer_jax.app.automl.training import Place
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec, given_values, load_spec, to_yaml
from oneformer_jax.app.spec.published.bundle import bundle
from oneformer_jax.data.datasets.images import read_image
from oneformer_jax.errors import OneFormerError

DATA = ("dataset.train.annotations=train.json", "dataset.val.annotations=val.json")  # which the stand-in never opens
SMALL = (
    *DATA,
    "train.num_epochs=4",
    "automl.algorithm=random",
    "automl.hyperparameters=[train.optim.lr]",
    "automl.metric=mIoU",
)
Search = Callable[..., dict[str, Any]]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Searches in `tmp_path / "automl"` with overrides; returns results.json."""

    def run(*overrides: str, places: int = 1, screen: io.StringIO | None = None) -> dict[str, Any]:
        path, folder = tmp_path / "spec.yaml", tmp_path / "automl"
        path.write_text(f"results_dir: {tmp_path}\n")
        folder.mkdir(exist_ok=True)
        cores = os.sched_getaffinity(0)
        here = [Place(f"cpu {index}", cores=frozenset(cores)) for index in range(places)]
        monkeypatch.setattr(action, "find_places", lambda *_: here)
        console = Screen(file=screen, width=200, force_terminal=screen is not None)
        settings = search_run(load_spec(path, [*SMALL, *overrides]))
        action.search(settings, Run(folder, StatusFile(folder, "automl", console), console), stand_in.COMMAND)
        return json.loads((folder / "results.json").read_text())

    return run


def range_of_lr(low: float, high: float) -> str:
    return f"automl.custom_param_ranges={{train.optim.lr: {{valid_min: {low}, valid_max: {high}}}}}"


@pytest.mark.slow
@pytest.mark.tao(37)
def test_the_best_validation_of_the_best_trial_counts(search: Search, tmp_path: Path) -> None:
    results = search("automl.max_recommendations=5", range_of_lr(1e-6, 1e-3), "train.optim.lr=1e-5")
    trials = results["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 5
    for trial in trials:
        lr = trial["values"]["train.optim.lr"]
        assert trial["score"] == pytest.approx(stand_in.score(lr, 3))  # not that of the last epoch, the fourth
        assert trial["scores"]["4"] == trial["score"]
    assert trials[0]["baseline"]
    assert trials[0]["values"] == {"train.optim.lr": 1e-5}
    best = max(trials, key=lambda trial: trial["score"])
    assert (results["best"]["trial"], results["best"]["step"]) == (best["number"], 3 * stand_in.STEPS_PER_EPOCH)

    spec = load_spec(tmp_path / "automl" / "best_spec.yaml")
    assert spec.train.optim.lr == results["best"]["values"]["train.optim.lr"]
    assert (spec.automl_policy, spec.train.results_dir, spec.results_dir) == ("off", "", str(tmp_path))
    assert (tmp_path / "automl" / "best").resolve().parent.parent.name == f"{best['number']:04d}"
    lines = [json.loads(line) for line in (tmp_path / "automl" / "status.json").read_text().splitlines()]
    assert [line["kpi"]["mIoU"] for line in lines] == [
        max(trial["score"] for trial in trials[: count + 1]) for count in range(5)
    ]
    picture = read_image(tmp_path / "automl" / "plots.png")
    assert picture.shape[0] > 500
    assert picture.std() > 10


@pytest.mark.slow
def test_a_failed_trial_is_recorded_and_the_study_goes_on(search: Search) -> None:
    options = "automl.custom_param_ranges={train.optim.lr: {valid_options: [1.0e-4, 5.0e-3]}}"
    results = search("automl.max_recommendations=6", options)
    states = Counter(trial["state"] for trial in results["trials"])
    assert states.keys() == {"complete", "failed"}
    for trial in results["trials"]:
        failed = trial["values"]["train.optim.lr"] > stand_in.LARGEST_LR
        assert trial["state"] == ("failed" if failed else "complete")
        assert trial["reason"] == ("the gradients were not finite: lr 0.005" if failed else None)
    assert results["best"]["values"] == {"train.optim.lr": 1e-4}


def test_what_is_wrong_for_every_trial_ends_the_study(search: Search, tmp_path: Path) -> None:
    with pytest.raises(OneFormerError, match="the first 3 trials all failed, the last one: the gradients were not"):
        search("automl.max_recommendations=9", range_of_lr(4e-3, 9e-3), "train.optim.lr=5e-3")
    assert len(json.loads((tmp_path / "automl" / "results.json").read_text())["trials"]) == 3


@pytest.mark.slow
def test_values_that_contradict_each_other_fail_their_trial_before_it_trains(search: Search, tmp_path: Path) -> None:
    scales = "{valid_options: [0.1, 3.0]}"
    results = search(
        "automl.max_recommendations=4",
        "automl.hyperparameters=[dataset.min_scale]",
        f"automl.custom_param_ranges={{dataset.min_scale: {scales}}}",
    )
    for trial in results["trials"]:
        wrong = trial["values"]["dataset.min_scale"] == 3.0
        assert (trial["state"] == "failed") == wrong, trial
        if wrong:
            assert "dataset.min_scale 3.0 exceeds" in trial["reason"]
            assert not (tmp_path / "automl" / trial["folder"] / "starts.jsonl").exists()


@pytest.mark.slow
def test_trials_that_are_behind_are_stopped(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_EPOCH", "0.6")  # longer than a look of the study
    results = search(
        "automl.algorithm=asha",
        "automl.reduction_factor=2",
        "train.num_epochs=4",
        "train.validation_interval=4",
        "automl.max_recommendations=4",
        "automl.run_baseline=false",
        range_of_lr(1e-6, 1e-3),
    )
    trials = results["trials"]
    assert trials[0]["state"] == "complete"  # nothing to compare it with
    stopped = [trial for trial in trials if trial["state"] == "stopped"]
    assert stopped
    for trial in stopped:
        assert trial["epochs"] in (1, 2)
        assert trial["score"] == pytest.approx(stand_in.score(trial["values"]["train.optim.lr"], trial["epochs"]))


@pytest.mark.slow
def test_only_the_best_checkpoint_stays(search: Search, tmp_path: Path) -> None:
    low = range_of_lr(1e-6, 1e-3)
    search("automl.max_recommendations=3", "automl.delete_intermediate_ckpt=false", low)
    kept = sorted(path.parent.name for path in (tmp_path / "automl" / "trials").glob("*/checkpoints"))
    assert kept == ["0000", "0001", "0002"]
    best = search("automl.max_recommendations=4", low)["best"]["trial"]
    kept = sorted(path.parent.name for path in (tmp_path / "automl" / "trials").glob("*/checkpoints"))
    assert kept == [f"{best:04d}"]
    assert (tmp_path / "automl" / "best").is_dir()


@pytest.mark.slow
def test_trials_run_side_by_side(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_EPOCH", "0.4")
    results = search("automl.max_recommendations=2", range_of_lr(1e-6, 1e-3), places=2)
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 2
    spans = []
    for trial in results["trials"]:
        text = (tmp_path / "automl" / trial["folder"] / "starts.jsonl").read_text()
        start, end = map(json.loads, text.splitlines())
        spans.append((start["time"], end["end"]))
    assert max(start for start, _ in spans) < min(end for _, end in spans)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trials", "killed"), [(3, (1,)), pytest.param(5, (0, 1, 3), marks=pytest.mark.prove)], ids=["once", "three times"]
)
def test_a_study_that_is_killed_ends_as_one_that_is_not(
    search: Search, tmp_path: Path, trials: int, killed: tuple[int, ...]
) -> None:
    overrides = [f"automl.max_recommendations={trials}", range_of_lr(1e-6, 1e-3), "train.optim.lr=1e-5"]
    uninterrupted = search(*overrides)

    spec_path, folder = tmp_path / "killed.yaml", tmp_path / "killed"
    folder.mkdir()
    plain = load_spec(None, [*SMALL, *overrides])
    spec_path.write_text(yaml.safe_dump(plain.model_dump(exclude_unset=True)))
    command = [sys.executable, stand_in.__file__, "study", str(spec_path), str(folder)]
    environment = os.environ | {"STAND_IN_EPOCH": "0.3", "PYTHONPATH": str(Path(__file__).parents[3])}
    for trial in killed:  # in the middle of these
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        with ended([process]):
            wait_until((folder / "trials" / f"{trial:04d}" / "log.jsonl").is_file)
        assert not finished(folder).get(trial)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

    results = json.loads((folder / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * trials
    values = [trial["values"]["train.optim.lr"] for trial in results["trials"]]
    assert len(set(values)) == trials
    assert values == [trial["values"]["train.optim.lr"] for trial in uninterrupted["trials"]]
    assert results["best"]["score"] == uninterrupted["best"]["score"]
    for number in killed:  # each went on from its own checkpoint
        starts = (folder / "trials" / f"{number:04d}" / "starts.jsonl").read_text().splitlines()
        epochs = [json.loads(line).get("epoch") for line in starts]
        assert epochs[0] == 0
        assert epochs[-2] > 0
        log = (folder / "trials" / f"{number:04d}" / "log.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in log]
        assert len(set(steps)) == 4


def finished(folder: Path) -> dict[int, bool]:
    study = optuna.load_study(study_name="oneformer", storage=f"sqlite:///{folder / 'study.db'}")
    return {trial.number: trial.state.is_finished() for trial in study.trials}


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_terminal_shows_a_table_that_lives(search: Search) -> None:
    screen = io.StringIO()
    options = "automl.custom_param_ranges={train.optim.lr: {valid_options: [1.0e-4, 5.0e-3]}}"
    results = search("automl.max_recommendations=6", options, screen=screen)
    (spec_score, *_) = (trial["score"] for trial in results["trials"])
    *_, last = screen.getvalue().split("6 of 6 trials")
    for text in ("(spec)", "complete", "failed", f"{spec_score:.4g}", "best mIoU"):
        assert text in last
    assert "running" not in last
    assert "1 of 6 trials" in screen.getvalue()
    assert "running" in screen.getvalue()


@pytest.mark.slow
def test_a_study_of_another_spec_is_refused(search: Search) -> None:
    search("automl.max_recommendations=1")
    with pytest.raises(OneFormerError, match=r"is a different one: .*train\.num_epochs was 4, now it is 3"):
        search("train.num_epochs=3")
    with pytest.raises(OneFormerError, match=r"range of train\.optim\.lr was 1e-06 \.\. 0\.01 \(log\), now it is"):
        search(range_of_lr(1e-6, 1e-3))
    assert len(search("automl.max_recommendations=2", "wandb.name=other")["trials"]) == 2


@pytest.mark.slow
def test_a_schema_of_ones_own_decides_what_is_searched(search: Search, tmp_path: Path) -> None:
    for name, text in bundle().items():
        (tmp_path / "skill" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "skill" / name).write_text(text)
    path = tmp_path / "skill" / "schemas" / "train.schema.json"
    schema = json.loads(path.read_text())
    leaf = schema["properties"]["model"]["properties"]["one_former"]["properties"]["dropout"]
    leaf |= {"automl_enabled": True, "minimum": 0.1, "maximum": 0.2}
    path.write_text(json.dumps(schema))
    results = search(
        "automl.hyperparameters=[]", f"automl.skill_dir={tmp_path / 'skill'}", "automl.max_recommendations=1"
    )
    assert results["search_space"]["model.one_former.dropout"] == "0.1 .. 0.2"
    assert "train.optim.lr" in results["search_space"]


def test_a_spec_of_set_keys_is_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("results_dir: a${oc.env:HOME}\ndataset: {label_map: '\\${x}', cutmix_prob: 0.5}\n")
    spec = load_spec(path, ["train.optim.lr=1e-4", "encryption_key=secret", "dataset.task_prob_train={semantic: 1}"])
    path.write_text(to_yaml(given_values(spec)))
    again = load_spec(path)
    assert again == Spec.model_validate(spec.model_dump() | {"encryption_key": ""})
    assert again.is_set("dataset.cutmix_prob")
    assert not again.is_set("inference.image_size")
    assert "secret" not in path.read_text()
