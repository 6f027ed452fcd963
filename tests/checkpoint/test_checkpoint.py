"""A checkpoint folder is written whole, comes back the same, and is refused when anything about it is not as made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mera_core.checkpoint import folder as checkpoint
from mera_core.checkpoint.folder import (
    MANIFEST,
    folder_hash,
    load_checkpoint,
    make_room,
    read_manifest,
    save_checkpoint,
    sha256,
)
from mera_core.common.errors import InputError
from mera_core.model.sequence import SequenceConfig
from tests.tiny import CODES, tiny_manifest, tiny_model

WEIGHTS, HEAD = "model.safetensors", "score_head.safetensors"


def change(folder: Path, **values) -> None:
    """Put other values into the manifest, as an editor would."""
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.float32, 0.0)])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_scores_as_before(tmp_path, dtype, tolerance, tied) -> None:
    model = tiny_model(tied=tied)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.tensor([[1, 7, 30, model.vocabulary.ids[CODES[2]], model.vocabulary.eov]])
    seen = torch.tensor([[0.0, 2, 1, 1, 0, 1]])
    with torch.inference_mode():
        before = torch.cat([part.flatten() for part in model.scores(model.hidden(ids)[:, -1], seen)])
    save_checkpoint(model, tiny_manifest(), tmp_path / "out", dtype)
    loaded, _ = load_checkpoint(tmp_path / "out")
    with torch.inference_mode():
        after = torch.cat([part.flatten() for part in loaded.scores(loaded.hidden(ids)[:, -1], seen)])
    assert (before - after).abs().max() <= tolerance
    assert loaded.device.type != "cpu" or loaded.backbone.dtype == torch.float32
    assert not loaded.training
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())  # saving leaves it alone


def test_the_loaded_tokenizer_gives_the_same_tokens(folder) -> None:
    before, (loaded, _) = tiny_model().vocabulary, load_checkpoint(folder)
    assert loaded.vocabulary.ids == before.ids and loaded.vocabulary.eov == before.eov
    text = "Patient: female, naïve 漢字."
    assert loaded.vocabulary.words(text) == before.words(text)
    assert "\n" not in (folder / "tokenizer.json").read_text(encoding="utf-8")  # no room for blanks


def test_the_manifest_comes_back_as_it_was(tmp_path) -> None:
    manifest = tiny_manifest(
        sequence=SequenceConfig(visit_details=("admission",), max_tokens=99),
        method={"rank": {"seed": 3}},
        data={"format": "table"},
        metrics={"test": 0.5},
    )
    written = save_checkpoint(tiny_model(), manifest, tmp_path / "out")
    assert read_manifest(tmp_path / "out") == written
    assert replace(written, files={}, versions={}) == manifest
    assert {"torch", "transformers"} <= set(written.versions)
    files = {path.name: sha256(path) for path in (tmp_path / "out").iterdir() if path.name != MANIFEST}
    assert written.files == files and len(files[HEAD]) == 64


def test_the_hash_of_a_folder_names_its_content(tmp_path) -> None:
    hashes = [
        folder_hash(save_checkpoint(tiny_model(seed=seed), tiny_manifest(), tmp_path / str(n)))
        for n, seed in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 12


def test_a_save_that_breaks_leaves_the_old_checkpoint_as_it_was(folder, monkeypatch) -> None:
    before = {path.name: sha256(path) for path in folder.iterdir()}
    monkeypatch.setattr(checkpoint.os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match=f"{folder.name} can't be written: disk full"):
        save_checkpoint(tiny_model(seed=9), tiny_manifest(), folder)
    assert {path.name: sha256(path) for path in folder.iterdir()} == before
    monkeypatch.undo()
    load_checkpoint(folder)
    save_checkpoint(tiny_model(seed=9), tiny_manifest(), folder)  # what the broken one left is no hindrance
    assert sha256(folder / WEIGHTS) != before[WEIGHTS]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("name", "said"),
    [(".", r"There is no checkpoint folder .*made"), (MANIFEST, r"not a checkpoint of MERA: it has no mera\.json")]
    + [(name, f"lacks the file {name}") for name in (WEIGHTS, HEAD, "config.json", "tokenizer.json")],
)
def test_what_is_missing_is_named(folder, name, said) -> None:
    shutil.rmtree(folder) if name == "." else (folder / name).unlink()
    with pytest.raises(InputError, match=said):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["more.safetensors", "notes.txt"])
def test_a_file_that_the_manifest_does_not_name_is_refused(folder, name) -> None:
    (folder / name).write_text("x")
    with pytest.raises(InputError, match=f"a file that does not belong to it: {name}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [(content, "can't be read as JSON") for content in (b"{", b"", b"\xff\xfe\x00", b'{"format": 1')]
    + [(content, "is not a manifest") for content in (b"[]", b"3", b'"x"')],
)
def test_a_manifest_that_is_no_json_or_no_object(folder, content, said) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=rf"mera\.json {said}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"surprise": 1}, "surprise is not a known name"),
        ({"label_space": ["428.0"]}, "label_space: .*'428.0'"),
        ({"label_space": [428]}, r"label_space\[0\] must be"),
        ({"label_space": ["ICD11:428.0"]}, "label_space: .*'ICD11'"),
        ({"sequence": {"max_tokens": 4}}, "sequence: max_tokens must be 16 or more"),
        ({"sequence": {"no_such_setting": 4}}, "sequence: no_such_setting is not a known name"),
        ({"sequence": None}, "sequence must be"),
        ({"systems": None}, "systems must be a list"),
        ({"systems": ["ICD11"]}, r"systems\[0\] must be ICD9 or ICD10"),
        ({"name": ["x"]}, "name must be text"),
        ({"calibration": [1]}, "calibration must be an object"),
        ({"copy": "yes"}, "copy must be true or false"),
        ({"files": ["model.safetensors"]}, "files must be an object"),
        ({"method": {"rank": "none"}}, "method.rank must be an object"),
        ({"x" * 5000: 1}, "x+… is not a known name"),
    ],
)
def test_a_manifest_with_a_value_that_makes_no_sense(folder, values, said) -> None:
    change(folder, **values)
    with pytest.raises(InputError, match=rf"mera\.json is not a manifest of MERA: {said}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (CODES[:-1], "does not fit this label space"),
        (("ICD9:999.9", *CODES[1:]), r"without a token, the first is ICD9:999\.9"),
    ],
)
def test_a_label_space_other_than_the_heads(folder, labels, said) -> None:
    change(folder, label_space=[str(code) for code in labels])
    with pytest.raises(InputError, match=said):
        load_checkpoint(folder)


def test_a_kind_of_quantization_that_does_not_exist(folder) -> None:
    with pytest.raises(InputError, match='quantize is "int3"'):
        load_checkpoint(folder, quantize="int3")


def test_what_is_no_checkpoint_is_never_replaced(tmp_path) -> None:
    own = tmp_path / "docs"
    (own / "chapter").mkdir(parents=True)
    (own / "chapter" / "one.md").write_text("mine")
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    base = tmp_path / "llama"  # a language model that this project did not write
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "new.old").mkdir()
    (tmp_path / "new.old" / "kept.txt").write_text("mine")
    (tmp_path / "link").symlink_to(own)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (own, file, base, tmp_path / "new", tmp_path / "link", Path("/"), tmp_path / ".."):
        with pytest.raises(InputError, match=r"is no checkpoint: nothing was done|link to another|no name for a new"):
            save_checkpoint(tiny_model(), tiny_manifest(), out)
    partial = tmp_path / "made.partial"
    partial.mkdir()
    with pytest.raises(InputError, match="docs is there already"):  # and by whoever writes a folder of their own
        checkpoint.put_in_place(partial, own)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("docs.*"))


def test_what_this_project_wrote_is_replaced(tmp_path) -> None:
    empty, run, export = tmp_path / "empty", tmp_path / "run", tmp_path / "export"
    empty.mkdir()
    (run / "steps" / "checkpoint-5").mkdir(parents=True)
    export.mkdir()
    (export / "config.json").write_text("{}")
    (export / "README.md").write_text(f"... {checkpoint.EXPORTED} (rank).")
    for out in (empty, run, export, tmp_path / "made" / "deep"):
        for _ in range(2):  # and what it writes then, too
            save_checkpoint(tiny_model(), tiny_manifest(), out)
            assert load_checkpoint(out)[1].stage == "rank"
            assert not out.with_name(out.name + ".old").exists()


def test_a_place_that_can_not_be_made_is_told_before_work_begins(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        make_room(tmp_path / "file" / "below" / "model")
    make_room(tmp_path / "new" / "model")
    assert (tmp_path / "new").is_dir() and not (tmp_path / "new" / "model").exists()


def test_what_is_left_of_a_replaced_folder_when_the_plug_is_pulled_stands_in_no_ones_way(folder, monkeypatch) -> None:
    rmtree = checkpoint.shutil.rmtree

    def stopped(path, **how):
        if path.name.endswith(".old"):
            raise KeyboardInterrupt
        rmtree(path, **how)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tiny_model(), tiny_manifest(), folder)
    monkeypatch.undo()
    old = folder.with_name("made.old")
    assert [path.name for path in old.iterdir()] == [checkpoint.GOING]  # its own sign has gone, this one is the last
    (old / "half.safetensors").write_text("")
    save_checkpoint(tiny_model(), tiny_manifest(), folder)
    assert not old.exists() and load_checkpoint(folder)
