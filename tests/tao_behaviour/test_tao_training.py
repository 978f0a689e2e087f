"""Keys of training that TAO ignores, misreads or rewrites; the numbers are those of behaviour.yaml."""

import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
import yaml

from oneformer_jax.app.actions.train.report import TrainingProgress
from oneformer_jax.app.run.devices import mesh_of
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.model_choice import device_choice
from oneformer_jax.app.settings.training import optimizer_config, schedule_config, training_length
from oneformer_jax.app.spec import Spec, unsupported_keys
from oneformer_jax.app.spec.published.schema import template
from oneformer_jax.app.spec.spec import notes
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.optimizer import global_norm, make_optimizer

SpecOf = Callable[..., Spec]


@pytest.mark.tao(1)
def test_the_learning_rate_warms_up_and_decays(spec_of: SpecOf, dataset: Dataset, tmp_path: Path) -> None:
    """There the rate is constant; here the keys of the spec and the number of images shape it."""
    spec = spec_of("train.num_epochs=10", "train.optim.warmup_iters=10", "train.optim.lr=1")
    settings = training_length(spec.train).in_steps(dataset, 1)
    schedule = schedule_config(spec.train.optim).build(settings.total_steps, settings.steps_per_epoch)
    rates = [float(schedule(step)) for step in range(settings.total_steps)]
    assert len(rates) == 50  # five images
    assert rates[0] == pytest.approx(spec.train.optim.warmup_factor)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.1 * max(rates)
    progress = TrainingProgress(Screen(quiet=True), total_steps=50, start_step=0)
    logbook = Logbook(tmp_path, start_step=0, reporter=progress)
    logbook.train(1, {"loss": 1.0, "lr": rates[0]}, 1.0)
    logbook.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["lr"] == pytest.approx(rates[0])


@pytest.mark.tao(2)
@pytest.mark.parametrize(
    ("overrides", "norm"),
    [
        ([], 1.0),
        (["train.clip_gradients.clip_value=2"], 2.0),
        (["train.clip_gradients.enabled=false"], 100.0),
        (["train.clip_grad_norm=0.01"], 0.01),
    ],
)
def test_gradients_are_clipped_by_either_key(spec_of: SpecOf, overrides: list[str], norm: float) -> None:
    """There no key clips; here the first moment of AdamW holds a tenth of the clipped gradient."""
    optimizer = make_optimizer(optimizer_config(spec_of(*overrides).train), optax.constant_schedule(1.0))
    gradients = {"predictor": {"kernel": jnp.full((4,), 50.0)}}  # of norm 100
    _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
    assert float(global_norm(optax.tree.get(state, "mu"), 2.0)) == pytest.approx(0.1 * norm, rel=1e-5)


@pytest.mark.tao(4)
@pytest.mark.parametrize(("overrides", "multiple"), [([], 1.0), (["train.optim.query_multiplier=2"], 2.0)])
def test_queries_learn_at_the_rate_that_their_key_says(spec_of: SpecOf, overrides: list[str], multiple: float) -> None:
    """There the doubled rate of the queries is written down but lost; here it is a key, by default as in TAO's runs."""
    spec = spec_of("train.clip_gradients.enabled=false", "train.optim.weight_decay=0", *overrides)
    optimizer = make_optimizer(optimizer_config(spec.train), optax.constant_schedule(1.0))
    ones = {"predictor": {"query_embed": jnp.ones(3), "level_embed": jnp.ones(3)}}
    updates, _ = optimizer.update(ones, optimizer.init(ones), ones)
    ratio = updates["predictor"]["query_embed"] / updates["predictor"]["level_embed"]
    assert ratio.tolist() == pytest.approx([multiple] * 3)


@pytest.mark.tao(5)
@pytest.mark.parametrize(
    ("key", "value", "default"),
    [("train.cudnn.benchmark", "true", "false"), ("train.cudnn.deterministic", "false", "true")],
)
def test_what_has_no_effect_is_named(spec_of: SpecOf, key: str, value: str, default: str) -> None:
    """There keys without an effect are silent; here a run names them, with the reason."""
    assert unsupported_keys(spec_of(f"{key}={value}")) == [key]
    assert notes()[key]
    assert unsupported_keys(spec_of(f"{key}={default}")) == []


@pytest.mark.tao(30)
def test_the_environment_leaves_the_spec_as_it_is(
    spec_of: SpecOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the launcher's variables rewrite parts of the spec and a mistake in them trains copies; here they name the
    nodes, the spec stays as it is, and a mistake ends the run."""
    for name in ("WORLD_SIZE", "NUM_GPU_PER_NODE", "NODE_RANK", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "7")
    text = "train: {seed: 3, num_nodes: 1, num_gpus: 1, gpu_ids: [0]}\n"
    spec = spec_of(f"results_dir={tmp_path}", text=text)
    assert (spec.train.num_nodes, spec.train.num_gpus, spec.train.gpu_ids) == (1, 1, (0,))
    with (
        pytest.raises(OneFormerError, match="NODE_RANK: found '7', expected a whole number from 0 to 6"),
        running("train", tmp_path / "spec.yaml", [f"results_dir={tmp_path}"], Screen(quiet=True)),
    ):
        pass
    assert (tmp_path / "spec.yaml").read_text() == text
    assert "FAILURE" in (tmp_path / "train" / "status.json").read_text()


@pytest.mark.tao(31)
def test_the_generated_spec_runs_on_the_devices_that_are_there(spec_of: SpecOf, tmp_path: Path) -> None:
    """There the template's 8 devices must exist; here those that exist are taken, and it is told."""
    import jax

    spec = spec_of(text=yaml.safe_dump(template("train")))
    assert (spec.train.num_gpus, spec.train.gpu_ids) == (8, (0,))
    status = StatusFile(tmp_path, "train", Screen(quiet=True))
    assert mesh_of(device_choice(spec, "train"), status).size == min(8, len(jax.devices()))
    assert len(jax.devices()) >= 8 or "train.num_gpus is 8, but only" in status.path.read_text()
    # A count on the command line does not drop the list of the file.
    kept = spec_of("train.num_gpus=2", text="train: {gpu_ids: [2, 3]}")
    assert (kept.train.num_gpus, kept.train.gpu_ids) == (2, (2, 3))
    assert spec_of().train.num_gpus == 1
