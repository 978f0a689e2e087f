"""Rows of `train`: length, devices, optimizer, learning rate, clipping, checkpoints; and of `wandb`."""

from key_rows import Changes, Refused, Rows, Shown, loop, optimizer, rate, result_folder, training

OPTIM, CLIP = "train.optim", "train.clip_gradients"
RATE_1 = (f"{OPTIM}.lr=1", f"{OPTIM}.warmup_iters=0")
STEPS = ("train.optim.lr_scheduler=MultiStep", *RATE_1)
"""A learning rate of 1 that falls in steps; an epoch has four updates, a training 200."""
BY_NORM = ("train.clip_grad_norm=0.5",)

LENGTH: Rows = {
    "train.num_epochs": Changes("3", loop("total_steps"), 12),
    "train.iters_per_epoch": Changes("7", loop("steps_per_epoch"), 7),
    "train.accumulate_grad_batches": Changes("2", loop("batches_per_step"), 2),
    "train.checkpoint_interval": Changes("2", loop("checkpoint_every"), 8),
    "train.checkpoint_interval_unit": Changes("step", loop("checkpoint_every"), 1),
    "train.validation_interval": Changes("2", loop("validate_every"), 8),
    "train.early_stopping": Changes("3", loop("patience"), 3, together=("dataset.val.annotations=/val.json",)),
    "train.val_check_interval": Changes("0.5", loop("validate_every"), 2),
    "train.checkpoint_keep": Changes("5", training("checkpoints_kept"), 5),
    "train.ema_decay": Changes("0.9", training("recipe.step.average_decay"), 0.9),
    "train.precision": Changes("16", training("recipe.step.precision"), "16-mixed"),
    "train.remat": Changes("blocks", training("recipe.model.remat"), "blocks"),
    "train.profile_steps": Changes("2", loop("profile_steps"), 2),
    "train.is_dry_run": Changes("true", training("dry_run"), True),
    "train.verbose": Changes("true", training("verbose"), True),
    "train.seed": Changes("7", training("pipeline.seed", "recipe.step.seed"), (7, 7)),
}

START: Rows = {
    "train.results_dir": Changes("HERE/mine", result_folder("train"), "mine", beside=("results_dir=HERE",)),
    "train.resume_training_checkpoint_path": Changes("/run/9", training("start.checkpoint"), "/run/9"),
    "train.pretrained_model": Changes("/m.pth", training("start.model"), "/m.pth"),
    "train.pretrained_backbone": Changes("/b.pth", training("start.backbone"), "/b.pth"),
    "train.freeze": Shown("app/actions/test_training_keys.py::test_frozen_parts"),
}

DEVICES: Rows = {
    "train.num_gpus": Changes("4", training("devices.count"), 4),
    "train.gpu_ids": Changes("[2,5]", training("devices.indices"), (2, 5)),
    "train.num_nodes": Shown("app/actions/test_training_keys.py::test_a_topology_that_is_not_there_is_refused"),
    "train.distributed_strategy": Changes("hsdp", training("recipe.step.strategy"), "hsdp"),
}

OPTIMIZER: Rows = {
    f"{OPTIM}.type": Changes("Muon", optimizer("type"), "Muon"),
    f"{OPTIM}.muon_rms": Changes("0.5", optimizer("muon_rms"), 0.5),
    f"{OPTIM}.monitor_name": Refused("val_loss"),
    f"{OPTIM}.backbone_multiplier": Changes("0.5", optimizer("backbone_multiplier"), 0.5),
    f"{OPTIM}.query_multiplier": Changes("2", optimizer("query_multiplier"), 2.0),
    f"{OPTIM}.momentum": Changes("0.8", optimizer("momentum"), 0.8),
    f"{OPTIM}.weight_decay": Changes("0.01", optimizer("weight_decay"), 0.01),
    f"{OPTIM}.lr": Changes("0.5", rate(0), 0.5, beside=(f"{OPTIM}.warmup_iters=0",)),
    f"{OPTIM}.lr_scheduler": Changes("MultiStep", rate(150), 1.0, beside=RATE_1),
    f"{OPTIM}.milestones": Changes("[2]", rate(8), 0.1, beside=STEPS),
    f"{OPTIM}.steps": Changes("[3]", rate(3), 0.1, beside=STEPS),
    f"{OPTIM}.gamma": Changes("0.5", rate(3), 0.5, beside=(*STEPS, f"{OPTIM}.steps=[3]")),
    f"{OPTIM}.warmup_iters": Changes("10", rate(10), 1.0, beside=(STEPS[0], f"{OPTIM}.lr=1")),
    f"{OPTIM}.warmup_factor": Changes("0.5", rate(0), 0.5, beside=(STEPS[0], f"{OPTIM}.lr=1")),
    f"{OPTIM}.max_iter": Changes("9", loop("total_steps"), 9),
}

CLIPPING: Rows = {
    "train.clip_grad_norm": Changes("0.5", optimizer("clip_value"), 0.5),
    "train.clip_grad_norm_type": Changes("1", optimizer("clip_norm_type"), 1.0, beside=BY_NORM),
    "train.clip_grad_type": Refused("value"),
    f"{CLIP}.enabled": Changes("false", optimizer("clip_value"), 0.0),
    f"{CLIP}.clip_type": Changes("value", optimizer("clip_type"), "value"),
    f"{CLIP}.clip_value": Changes("0.5", optimizer("clip_value"), 0.5),
    f"{CLIP}.norm_type": Changes("1", optimizer("clip_norm_type"), 1.0),
}

ON = ("wandb.enable=true",)
WANDB: Rows = {
    "wandb.enable": Changes("true", lambda spec: training("tracking")(spec) is not None, True),
    "wandb.project": Changes("mine", training("tracking.project"), "mine", beside=ON),
    "wandb.entity": Changes("team", training("tracking.entity"), "team", beside=ON),
    "wandb.group": Changes("mine", training("tracking.group"), "mine", beside=ON),
    "wandb.tags": Changes("[a,b]", training("tracking.tags"), ("a", "b"), beside=ON),
    "wandb.reinit": Changes("true", training("tracking.reinit"), True, beside=ON),
    "wandb.sync_tensorboard": Changes("true", training("tracking.sync_tensorboard"), True, beside=ON),
    "wandb.save_code": Changes("true", training("tracking.save_code"), True, beside=ON),
    "wandb.name": Changes("mine", training("tracking.name"), "mine", beside=ON),
    "wandb.run_id": Changes("r12", training("tracking.run_id"), "r12", beside=ON),
}

ROWS: tuple[Rows, ...] = (LENGTH, START, DEVICES, OPTIMIZER, CLIPPING, WANDB)
