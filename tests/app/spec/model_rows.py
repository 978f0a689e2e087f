"""Rows of `model`: fields of the architecture, the losses and the thresholds."""

from key_rows import Changes, Refused, Rows, Shown, criterion, model, thresholds, training

from oneformer_jax.models.backbones import ConvNeXtConfig

HEAD, FORMER, TEXT = "model.sem_seg_head", "model.one_former", "model.text_encoder"
TASKS = training("validation.tasks")
BACKBONE, SWIN, TEST = "model.backbone", "model.backbone.swin", "model.test"
CONVNEXT, DINAT, RADIO = "model.backbone.convnext", "model.backbone.dinat", "model.backbone.radio"

SEM_SEG_HEAD: Rows = {
    f"{HEAD}.name": Refused("MaskFormerHead"),
    f"{HEAD}.ignore_value": Shown(
        "app/actions/test_training_keys.py::test_void_may_have_any_label_but_that_of_a_class"
    ),
    f"{HEAD}.loss_weight": Refused("2"),
    f"{HEAD}.in_features": Refused("[res4,res5]"),
    f"{HEAD}.common_stride": Refused("8"),
    f"{HEAD}.transformer_enc_layers": Changes("3", model("pixel_decoder.num_layers"), 3),
    f"{HEAD}.convs_dim": Changes("128", model("pixel_decoder.conv_dim"), 128, together=(f"{HEAD}.mask_dim=128",)),
    f"{HEAD}.mask_dim": Changes("128", model("pixel_decoder.mask_dim"), 128, together=(f"{HEAD}.convs_dim=128",)),
    f"{HEAD}.pixel_decoder_name": Refused("FPN"),
    f"{HEAD}.deformable_transformer_encoder_in_features": Refused("[res5]"),
    f"{HEAD}.norm": Refused("BN"),
    f"{HEAD}.num_classes": Changes("7", model("num_classes"), 7),
}

ONE_FORMER: Rows = {
    f"{FORMER}.hidden_dim": Changes("64", model("transformer.hidden_dim"), 64, together=(f"{TEXT}.width=64",)),
    f"{FORMER}.nheads": Changes("4", model("transformer.num_heads", "pixel_decoder.num_heads"), (4, 4)),
    f"{FORMER}.dim_feedforward": Changes("512", model("transformer.dim_feedforward"), 512),
    f"{FORMER}.enc_layers": Changes("2", model("transformer.enc_layers"), 2),
    f"{FORMER}.dec_layers": Changes("4", model("transformer.dec_layers"), 4),
    f"{FORMER}.pre_norm": Changes("true", model("transformer.pre_norm"), True),
    f"{FORMER}.enforce_input_proj": Changes("true", model("transformer.enforce_input_proj"), True),
    f"{FORMER}.size_divisibility": Refused("64"),
    f"{FORMER}.num_object_queries": Changes("100", model("transformer.num_queries"), 100),
    f"{FORMER}.train_num_points": Changes("64", criterion("num_points"), 64),
    f"{FORMER}.oversample_ratio": Changes("2", criterion("oversample_ratio"), 2.0),
    f"{FORMER}.importance_sample_ratio": Changes("0.5", criterion("importance_sample_ratio"), 0.5),
    f"{FORMER}.mask_weight": Changes("3", criterion("mask_weight"), 3.0),
    f"{FORMER}.dice_weight": Changes("3", criterion("dice_weight"), 3.0),
    f"{FORMER}.class_weight": Changes("3", criterion("class_weight"), 3.0),
    f"{FORMER}.no_object_weight": Changes("0.3", criterion("no_object_weight"), 0.3),
    f"{FORMER}.deep_supervision": Changes("false", criterion("deep_supervision"), False),
    f"{FORMER}.dropout": Changes("0.2", model("transformer.dropout", "pixel_decoder.dropout"), (0.2, 0.2)),
    f"{FORMER}.transformer_decoder_name": Refused("StandardTransformerDecoder"),
    f"{FORMER}.transformer_in_feature": Refused("res5"),
    f"{FORMER}.class_dec_layers": Changes("1", model("transformer.class_dec_layers"), 1),
    f"{FORMER}.contrastive_weight": Changes("0", criterion("contrastive_weight"), 0.0),
    f"{FORMER}.contrastive_temperature": Changes("0.25", training("recipe.temperature"), 0.25),
    f"{FORMER}.use_task_norm": Changes("false", model("transformer.use_task_norm"), False),
    f"{FORMER}.num_feature_levels": Refused("4"),
}

TEXT_ENCODER: Rows = {
    f"{TEXT}.context_length": Changes(
        "60", model("text_encoder.context_length"), 60, together=("dataset.max_seq_len=60",)
    ),
    f"{TEXT}.vocab_size": Changes("50000", model("text_encoder.vocab_size"), 50000),
    f"{TEXT}.width": Changes("64", model("text_encoder.width"), 64, together=(f"{FORMER}.hidden_dim=64",)),
    f"{TEXT}.num_layers": Changes("2", model("text_encoder.num_layers"), 2),
    f"{TEXT}.n_ctx": Changes("8", model("text_encoder.n_ctx"), 8),
    f"{TEXT}.proj_num_layers": Changes("1", model("text_encoder.proj_num_layers"), 1),
}

DILATIONS = ((1, 2, 1), (1, 2, 1, 2), (1,) * 18, (1, 2, 1, 2, 1))
BACKBONES: Rows = {
    f"{BACKBONE}.name": Changes("D2ConvNeXt", model("backbone"), ConvNeXtConfig()),
    f"{BACKBONE}.freeze_at": Shown("app/actions/test_training_keys.py::test_frozen_parts"),
    f"{SWIN}.embed_dim": Changes("96", model("backbone.embed_dim"), 96),
    f"{SWIN}.depths": Changes("[2,2,6,2]", model("backbone.depths"), (2, 2, 6, 2)),
    f"{SWIN}.num_heads": Changes("[3,6,12,24]", model("backbone.num_heads"), (3, 6, 12, 24)),
    f"{SWIN}.window_size": Changes("7", model("backbone.window_size"), 7),
    f"{SWIN}.mlp_ratio": Changes("2", model("backbone.mlp_ratio"), 2.0),
    f"{SWIN}.init": Changes("fan_in", model("backbone.init"), "fan_in"),
    f"{SWIN}.qkv_bias": Changes("false", model("backbone.qkv_bias"), False),
    f"{SWIN}.qk_scale": Changes("0.1", model("backbone.qk_scale"), 0.1),
    f"{SWIN}.attn_drop_rate": Changes("0.1", model("backbone.attn_drop_rate"), 0.1),
    f"{SWIN}.drop_rate": Changes("0.1", model("backbone.drop_rate"), 0.1),
    f"{SWIN}.drop_path_rate": Changes("0.1", model("backbone.drop_path_rate"), 0.1),
    f"{SWIN}.ape": Changes("true", model("backbone.ape"), True),
    f"{SWIN}.patch_norm": Changes("false", model("backbone.patch_norm"), False),
    f"{SWIN}.patch_size": Refused("2"),
    f"{SWIN}.pretrain_img_size": Changes("224", model("backbone.pretrain_img_size"), 224),
    f"{SWIN}.use_checkpoint": Changes("true", model("backbone.use_checkpoint"), True),
    f"{SWIN}.out_features": Refused("[res3,res4,res5]"),
    f"{SWIN}.out_indices": Refused("[1,2,3]"),
    f"{DINAT}.out_features": Refused("[res3,res4,res5]"),
    f"{DINAT}.out_indices": Refused("[1,2,3]"),
    **{
        f"{DINAT}.{name}": Changes(value, model(f"backbone.{name}"), expected, beside=(f"{BACKBONE}.name=D2DiNAT",))
        for name, value, expected in (
            ("embed_dim", "96", 96),
            ("depths", "[2,2,6,2]", (2, 2, 6, 2)),
            ("num_heads", "[3,6,12,24]", (3, 6, 12, 24)),
            ("kernel_size", "11", 11),
            ("dilations", f"{[list(stage) for stage in DILATIONS]}", DILATIONS),
            ("attention", "zero_padded", "zero_padded"),
            ("mlp_ratio", "3", 3.0),
            ("drop_path_rate", "0.1", 0.1),
            ("init", "fan_in", "fan_in"),
            ("use_checkpoint", "true", True),
        )
    },
    **{
        f"{CONVNEXT}.{name}": Changes(
            value, model(f"backbone.{name}"), expected, beside=(f"{BACKBONE}.name=D2ConvNeXt",)
        )
        for name, value, expected in (
            ("depths", "[3,3,9,3]", (3, 3, 9, 3)),
            ("dims", "[96,192,384,768]", (96, 192, 384, 768)),
            ("drop_path_rate", "0.1", 0.1),
            ("layer_scale_init_value", "0.1", 0.1),
            ("init", "fan_in", "fan_in"),
            ("use_checkpoint", "true", True),
        )
    },
    f"{RADIO}.window_size": Refused("16"),
    f"{RADIO}.out_features": Shown("app/spec/test_spec_errors.py::test_file_line_key_and_hint"),
    **{
        f"{RADIO}.{name}": Changes(value, model(f"backbone.{field}"), expected, beside=(f"{BACKBONE}.name=D2RADIO",))
        for name, field, value, expected in (
            ("backbone", "mlp_norm", "vit_huge_patch16_224_mlpnorm", True),
            ("embed_dim", "embed_dim", "96", 96),
            ("depth", "depth", "3", 3),
            ("num_heads", "num_heads", "8", 8),
            ("mlp_width", "mlp_width", "128", 128),
            ("num_teacher", "tokens", "9", 16),
            ("register_multiple", "tokens", "5", 5),
            ("cpe_max_size", "position_side", "1024", 64),
            ("resolution", "positions", "[2048,2048]", "cropped"),
            ("align_corners", "align_corners", "false", False),
            ("init", "init", "fan_in", "fan_in"),
            ("use_checkpoint", "use_checkpoint", "true", True),
        )
    },
}

TASKS_AND_THRESHOLDS: Rows = {
    f"{TEST}.object_mask_threshold": Changes("0.8", thresholds("object_mask_threshold"), 0.8),
    f"{TEST}.overlap_threshold": Changes("0.8", thresholds("overlap_threshold"), 0.8),
    f"{TEST}.test_topk_per_image": Changes("10", thresholds("test_topk_per_image"), 10),
    f"{TEST}.semantic_on": Changes("false", TASKS, ("instance",), beside=(f"{TEST}.instance_on=true",)),
    f"{TEST}.instance_on": Changes("true", TASKS, ("semantic", "instance")),
    f"{TEST}.panoptic_on": Changes("true", TASKS, ("semantic", "panoptic")),
    f"{TEST}.detection_on": Refused("true"),
}

ROWS: tuple[Rows, ...] = (SEM_SEG_HEAD, ONE_FORMER, TEXT_ENCODER, BACKBONES, TASKS_AND_THRESHOLDS)
