"""Passwords, signatures and keys stand in nothing that is written or printed."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from oneformer_jax.app.actions.spec_files import inspect_spec
from oneformer_jax.app.automl.request import TrialSpecs
from oneformer_jax.app.jobs.workspace import Job, Record
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec, dump_yaml, load_spec
from oneformer_jax.app.spec.source import is_secret
from oneformer_jax.app.spec.spec import withheld
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.data.storage.addresses import explained, look_up, redacted, shown
from oneformer_jax.errors import DataError, OneFormerError, SpecError

WORD = "T0p-Secret"
SIGNED = f"https://user:{WORD}@host.org/a/b.tgz?X-Amz-Signature={WORD}"
KEPT = "https://<redacted>@host.org/a/b.tgz?<redacted>"
WITHOUT_SECRETS = [
    "https://host.org:8080/a/b@c",
    "hf://owner/name@revision/file.bin",
    "s3://bucket/a",
    "tfds:///a/b?c",
    "/a path/with@sign?and=mark",
]


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        (SIGNED, KEPT),
        (f"s3://id:{WORD[:4]}/{WORD}@bucket/a", "s3://<redacted>@bucket/a"),
        (f"https://{WORD}@host/a", "https://<redacted>@host/a"),
        (f"https://a:{WORD}?{WORD}@host/a", "https://<redacted>@host/a"),
        (f"https://a:1@{WORD}@host/a", "https://<redacted>@host/a"),
        (f"https://host/a#access_token={WORD}", "https://host/a#<redacted>"),
        (f"https://host/a;sig={WORD}", "https://host/a;<redacted>"),
        (f"https://u:a'{WORD}\"<b@h/x", "https://<redacted>@h/x"),
        (f"https:/u:{WORD}@h/x", "https:/<redacted>@h/x"),
        (f"//u:{WORD}@h/x", "//<redacted>@h/x"),
        ("https:/host/a?b", "https:/host/a?b"),
        ("//host/a?b", "//host/a?b"),
        (f"https://host?sig={WORD}#x", "https://host?<redacted>"),
        (f"https://[::1/a?{WORD}", "https://[::1/a?<redacted>"),
        (f"tfds://{SIGNED}", f"tfds://{KEPT}"),
        (f"file://https://u:{WORD}@h/x", "file://https://<redacted>@h/x"),
        *((address, address) for address in WITHOUT_SECRETS),
    ],
)
def test_of_an_address_what_is_secret_is_left_out(address: str, kept: str) -> None:
    assert shown(address) == kept
    assert redacted(f"cannot read '{address}': absent") == f"cannot read '{kept}': absent"
    assert redacted({"a": [address, 1, None], "b": (address,)}) == {"a": [kept, 1, None], "b": (kept,)}


@given(st.text(alphabet="abc:/@?#%=&.", max_size=12), st.text(alphabet="abc:/@?=", max_size=8))
@example("@b://", "")
def test_what_is_redacted_stays_as_it_is(user: str, path: str) -> None:
    once = redacted(f"https://{user}@host/{path} x")
    assert redacted(once) == once


@pytest.mark.parametrize("words", ["no such {0}", "maximum length is 96: 'a/b.tgz?{1}={2}'", "login user:{2} failed"])
def test_what_a_client_says_of_an_address_holds_no_secret(words: str) -> None:
    said = words.format(SIGNED, "X-Amz-Signature", WORD)
    with pytest.raises(DataError) as caught, explained(SIGNED):
        raise ValueError(said)
    assert WORD not in str(caught.value)


def test_an_address_whose_secret_was_left_out_is_not_asked_for() -> None:
    with pytest.raises(DataError, match="its password or signature was not stored"):
        look_up(KEPT)


def test_only_the_encryption_key_is_a_secret_key_of_the_spec() -> None:
    assert [leaf.path for leaf in leaves(Spec) if is_secret(leaf.path)] == ["encryption_key"]


@pytest.mark.parametrize(
    "override",
    [
        f"encryption_key=[{WORD}]",
        f"encryption_key={{{WORD}",
        f"encryption_key=*{WORD}",
        f"encryption_key=${{{WORD}}}",
        f"encryption_key=${{{WORD}",
        f"++encryption_key=!{WORD} a",
        f"wandb.api_key={WORD}",
        f"train.hf_token={WORD}",
        f"encryption_key {WORD}",
        f"encryption_key:{WORD}",
        f"encryption_key.x={WORD}",
        f"dataset.train.batch_size={SIGNED}",
        f"unknown={SIGNED}",
        f"train.optim={SIGNED}",
    ],
)
def test_a_malformed_secret_is_not_in_the_message(override: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(None, [override])
    assert WORD not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        f"encryption_key: [{WORD}]",
        f"encryption_key: *{WORD}",
        f"encryption_key: !{WORD} a",
        f"encryption_key: '{WORD}",
        f"encryption_key: @{WORD}",
        f"encryption_key: ${{{WORD}}}",
        f"encryption_key: {{{WORD}: 1}}",
        f"train: {{api_key: !{WORD} a}}",
        f"dataset: {{train: {{batch_size: '{SIGNED}'}}}}",
    ],
)
def test_a_malformed_secret_in_a_file_is_neither_printed_nor_written(text: str, tmp_path: Path) -> None:
    path, out = tmp_path / "spec.yaml", io.StringIO()
    path.write_text(f"{text}\n")
    with (
        pytest.raises(OneFormerError) as raised,
        running("train", path, [f"results_dir={tmp_path}/r"], Screen(file=out)),
    ):
        pass
    assert WORD not in str(raised.value) + out.getvalue()
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
    assert [file.name for file in written if file.name == "status.json"]
    assert not [file for file in written if WORD in file.read_text()]


def test_what_describes_a_run_names_addresses_without_their_secrets(tmp_path: Path) -> None:
    text = f"dataset: {{train: {{images: ['{SIGNED}'], annotations: a.json}}, label_map: {{'*': '{SIGNED}'}}}}"
    (tmp_path / "spec.yaml").write_text(f"{text}\nencryption_key: {WORD}\n")
    spec = load_spec(tmp_path / "spec.yaml", [f"train.pretrained_model={SIGNED}"])
    assert spec.dataset.train.images == (SIGNED,)
    assert spec.to_dict()["dataset"]["label_map"] == {"*": KEPT}
    assert WORD not in dump_yaml(spec) + json.dumps(spec.to_dict())

    out = io.StringIO()
    inspect_spec(tmp_path / "spec.yaml", [f"train.pretrained_model={SIGNED}"], Screen(file=out, width=300))
    assert WORD not in out.getvalue()
    assert KEPT in out.getvalue()


def test_the_screen_and_status_json_leave_secrets_out(tmp_path: Path) -> None:
    out = io.StringIO()
    screen = Screen(file=out, width=300)
    StatusFile(tmp_path, "train", screen).warning(f"cannot read {SIGNED}")
    table = Table("where", title=SIGNED)
    table.add_row(SIGNED)
    screen.print(table)
    assert WORD not in out.getvalue() + (tmp_path / "status.json").read_text()
    assert out.getvalue().count(KEPT) == 3


def test_a_job_record_holds_no_secret(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.write(Record("train", "train", datasets={"train_datasets": SIGNED}, inputs={"a": [SIGNED]}, message=SIGNED))
    assert WORD not in job.record_path.read_text()
    assert job.read().datasets == {"train_datasets": KEPT}


def test_a_child_gets_secrets_by_its_environment_and_files_hold_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = f"https://a:{WORD}@host/it's.json"
    data = {"dataset": {"train": {"images": [SIGNED, "here"], "annotations": odd}}, "results_dir": "r"}
    trial = TrialSpecs(data)
    variables = trial.write({}, tmp_path)
    path = tmp_path / "spec.yaml"
    assert WORD not in path.read_text()
    assert load_spec(path).dataset.train.images == (KEPT, "here")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_spec(path).dataset.train.images == (SIGNED, "here")
    assert load_spec(path).dataset.train.annotations == odd


def test_what_holds_no_secret_is_written_as_it_is() -> None:
    data = {"a": [*WITHOUT_SECRETS, "${oc.env:X}"], "b": {"c": 1}}
    assert withheld(data) == (data, {})
