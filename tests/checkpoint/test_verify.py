"""A checkpoint that somebody else made: what could run code, lead out of its folder or use up the machine is refused unopened.

Every hash in these folders is right: an attacker writes the manifest too.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mera_core.checkpoint.folder import MANIFEST, load_checkpoint
from mera_core.checkpoint.verify import check_files, read_manifest_values, sha256
from mera_core.common.errors import InputError
from mera_core.common.limits import Limits, applied
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS, HEAD = "model.safetensors", "score_head.safetensors"


def hashed(folder: Path) -> Path:
    """The folder, with a manifest that names every file in it and its hash."""
    path = folder / MANIFEST
    files = {each.name: sha256(each) for each in folder.iterdir() if each.is_file() and each.name != MANIFEST}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files}))
    return folder


def put(folder: Path, name: str, content: bytes | str) -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return hashed(folder)


def put_json(folder: Path, name: str, **values) -> Path:
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    return put(folder, name, json.dumps(known | values))


def safetensors(header: dict | bytes, tensors: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + tensors


def refused(folder: Path, said: str) -> None:
    """Refused in one sentence, although every hash in the manifest is right."""
    with pytest.raises(InputError, match=said) as told:
        load_checkpoint(hashed(folder))
    assert "\n" not in str(told.value)


# --- the canary: content that writes a file when it is run


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "the-canary-ran"


def pickled(canary: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(Canary(canary), protocol)


def torch_saved(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": Canary(canary)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [pickled, torch_saved])
@pytest.mark.parametrize(
    ("name", "said"),
    [(name, f"does not belong to it: {name}") for name in ("pytorch_model.bin", "weights.pkl", "x.joblib", "w.npy")]
    + [(name, f"{name} is (a pickle|an archive)") for name in ("config.json", "README.md", "more.json", WEIGHTS, HEAD)],
)
def test_a_pickle_is_refused_and_never_opened(folder, canary, make, name, said) -> None:
    refused(put(folder, name, make(canary)), said if name not in (WEIGHTS, HEAD) else name)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle_is_refused_as_weights(folder, canary, protocol) -> None:
    refused(put(folder, HEAD, pickled(canary, protocol)), HEAD)
    assert not canary.exists()


def test_code_of_its_own_is_refused_with_and_without_its_file(folder, canary) -> None:
    put_json(folder, "config.json", model_type="canary", auto_map={"AutoConfig": "modeling_canary.Canary"})
    refused(
        put(folder, "modeling_canary.py", f"open({str(canary)!r}, 'w').close()\n"), r"belong to it: modeling_canary\.py"
    )
    (folder / "modeling_canary.py").unlink()
    refused(folder, "auto_map")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_auto_map_is_found_however_deep_and_however_written(folder, name) -> None:
    content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    text = json.dumps(content | {"text_config": [{"inner": {"KEY": {"AutoModel": "x.Y"}}}]})
    refused(put(folder, name, text.replace("KEY", r"\u0061uto_map")), "auto_map")


@pytest.mark.parametrize("name", ["modeling.py", "kernel.so", "template.jinja", "X.PY", ".hidden"])
def test_a_code_file_is_refused(folder, name) -> None:
    refused(put(folder, name, b"x"), f"does not belong to it: {name}")


@pytest.mark.parametrize(
    "head", [b"\x7fELF\x02\x01\x01", b"#!/bin/sh\n", b"MZ\x90\x00", b"\x1f\x8b\x08\x00", b"PK\x03\x04"]
)
def test_a_program_or_a_packed_file_under_a_harmless_name(folder, head) -> None:
    refused(put(folder, "README.md", head + b"x" * 64), r"README\.md is (a program|a packed file|an archive)")


def test_nothing_of_ours_ever_trusts_remote_code() -> None:
    """Read from the source: the word is only ever followed by False, and what loads a model says so."""
    said = []
    for path in [p for part in ("mera_core", "training", "pages") for p in (ROOT / part).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                said.append((path.name, isinstance(node.value, ast.Constant) and node.value.value is False))
    assert said and [name for name, off in said if not off] == []


# --- values of JSON that a library would act on


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("config.json", {"trust_remote_code": True}, "refused"),
        ("config.json", {"custom_generate": "someone/generate"}, "refused"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "x.Y"}}}, "refused"),
        ("config.json", {"auto_mapping": {"base_model_class": "X", "parent_library": "canary"}}, "refused"),
        ("config.json", {"attn_implementation": "kernels-community/flash-attn"}, "refused"),
        ("config.json", {"_attn_implementation": "someone/kernel:function"}, "refused"),
        ("config.json", {"attn_implementation": {"": "someone/kernel"}}, "refused"),
        ("adapter_config.json", {"base_model_name_or_path": "someone/else"}, "holds adapters and not a whole model"),
        ("tokenizer_config.json", {"vocab_file": "/etc/hostname"}, r"other files to load \(vocab_file\)"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../x"]}, r"other files to load \(fast_tokenizer_files\)"),
        (f"{WEIGHTS}.index.json", {"weight_map": {"a": f"../{WEIGHTS}"}}, "names weights that are not in the manifest"),
        # what would take more memory or time than the weights account for
        *(
            ("config.json", {key: value}, f"claims .*{key}")
            for key, value in (
                ("vocab_size", 50_000_000), ("hidden_size", 1_000_000), ("intermediate_size", 10**9),
                ("num_hidden_layers", 1_000_000), ("num_attention_heads", 10**7), ("max_position_embeddings", 10**9),
                ("num_hidden_layers", 1e9),
            )
        ),
        # padding to a length that no memory holds aborts the process: nothing could catch it
        ("tokenizer.json", {"padding": {"strategy": {"Fixed": 10**12}, "pad_id": 0}}, "sets padding"),
        ("tokenizer.json", {"truncation": {"max_length": 1, "strategy": "LongestFirst"}}, "sets truncation"),
        ("config.json", {"id2label": {str(number): "x" for number in range(10_001)}}, "lists 10,001 id2label"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "sets quantization_config"),
        ("config.json", {"num_hidden_layers": 0}, r"has no place for the weights model\.layers\.0"),
        ("config.json", {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "state_size": 10**8}, "config"),
        ("config.json", {"model_type": "t5", "d_ff": 10**9, "is_encoder_decoder": True}, r"config\.json"),
        ("config.json", {"head_dim": 10**7}, r"config\.json"),
        # what a library stumbles over
        ("config.json", {"model_type": "no-such-model"}, "do not fit"),
        ("config.json", {"hidden_size": "wide"}, "do not fit"),
        ("config.json", {"num_attention_heads": 0}, "do not fit"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}, "do not fit"),
        ("tokenizer.json", {"added_tokens": [{"id": -1}]}, "do not fit"),
        ("tokenizer_config.json", {"pad_token": None, "eos_token": None}, "no end-of-sequence token"),
    ],
    ids=lambda each: str(each)[:40],
)  # fmt: skip
def test_a_value_that_a_library_would_act_on_is_refused(folder, name, values, said) -> None:
    refused(put_json(folder, name, **values), said)


# --- out of the folder


@pytest.mark.parametrize(("name", "said"), [(HEAD, f"lacks the file {HEAD}"), (MANIFEST, r"it has no mera\.json")])
def test_a_link_in_place_of_a_file_is_refused(folder, tmp_path, name, said) -> None:
    hashed(folder)
    (folder / name).rename(tmp_path / "elsewhere.json")
    (folder / name).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=said):
        load_checkpoint(folder)


def test_a_link_to_a_folder_is_refused(folder, tmp_path) -> None:
    (folder / "more").symlink_to(tmp_path, target_is_directory=True)
    refused(folder, "does not belong to it: more")
    (folder / "more").unlink()
    (folder / "more").mkdir()
    refused(folder, "does not belong to it: more")
    (folder / "more").rmdir()
    (folder / "more.json").symlink_to("config.json")
    refused(folder, r"lacks the file more\.json")


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(folder) -> None:
    (folder / HEAD).unlink()
    os.mkfifo(folder / HEAD)
    with pytest.raises(InputError, match=f"lacks the file {HEAD}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json", "/etc/hostname", "sub/inner.json", "..", ".", "", "a\\b.json", "c:x.json", "x\0.json",
        ".hidden.json", "-x.json", "mera.json", "x" * 300 + ".json", "ｃonfig.json", "a b.json", "a\n.json",
    ],
)  # fmt: skip
def test_a_name_that_plays_tricks_is_refused(folder, name) -> None:
    path = folder / MANIFEST
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"files": values["files"] | {name: "0" * 64}}))
    with pytest.raises(InputError, match="lacks the file"):
        load_checkpoint(folder)


def test_names_that_differ_in_capitals_only_are_refused(folder) -> None:
    refused(put(folder, "Config.json", (folder / "config.json").read_bytes()), "differ in capitals only")


def test_a_name_on_a_hub_is_no_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("meta-llama/Llama-2-7b", "https://example.org/model", "hf://someone/else"):
        with pytest.raises(InputError, match="There is no checkpoint folder"):
            load_checkpoint(Path(name))


# --- altered


def test_one_altered_byte_of_any_file_is_found(folder) -> None:
    hashed(folder)
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST:
            continue
        before = path.read_bytes()
        changed = bytearray(before)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match=f"{path.name} was altered"):
            check_files(folder, read_manifest_values(folder)["files"])
        path.write_bytes(before)
    check_files(folder, read_manifest_values(folder)["files"])


@pytest.mark.parametrize(
    ("values", "said"),
    [({"files": {HEAD: value}}, f"no SHA-256 for the file {HEAD}") for value in ("", "0" * 63, "Z" * 64, 7, None)]
    + [({"format": value}, "a format that this version does not read") for value in (0, 2, None, "1", [1], 1.5)],
)
def test_a_manifest_of_an_unknown_version_or_without_hashes_is_refused(folder, values, said) -> None:
    known = read_manifest_values(folder)
    files = known["files"] | values.get("files", {})
    (folder / MANIFEST).write_text(json.dumps(known | values | {"files": files}))
    with pytest.raises(InputError, match=said if "format" in values else "no SHA-256|files"):
        load_checkpoint(folder)


def test_a_folder_that_is_replaced_while_it_is_loaded_is_refused(folder, monkeypatch) -> None:
    import mera_core.checkpoint.folder as checkpoint

    def swapped(path: Path):
        content = (path / HEAD).read_bytes()
        (path / HEAD).unlink()
        (path / HEAD).write_bytes(content)
        return original(path)

    original = checkpoint.load_vocabulary
    monkeypatch.setattr(checkpoint, "load_vocabulary", swapped)
    with pytest.raises(InputError, match="was replaced while it was loaded"):
        load_checkpoint(folder)


# --- bombs


def test_json_that_is_nested_too_deeply_is_refused(folder) -> None:
    for name, depth in (("config.json", 100), ("generation_config.json", 500_000), (MANIFEST, 100_000)):
        kept = (folder / name).read_bytes()
        (folder / name).write_text('{"x": ' + "[" * depth + "]" * depth + "}")
        if name != MANIFEST:
            hashed(folder)
        with pytest.raises(InputError, match=rf"{name} is nested too deeply: at most 64 levels"):
            load_checkpoint(folder)
        (folder / name).write_bytes(kept)


def test_json_that_is_too_large_is_refused_unread(folder) -> None:
    put(folder, "more.json", b'{"x": "' + b"x" * 300_000 + b'"}')
    said = r"more\.json is above the limit checkpoint_json_bytes: at most 200,000 bytes"
    with applied(Limits(checkpoint_json_bytes=200_000)), pytest.raises(InputError, match=said):
        load_checkpoint(folder)


def test_too_many_files_are_refused(folder) -> None:
    with applied(Limits(checkpoint_files=4)), pytest.raises(InputError, match="above the limit checkpoint_files"):
        load_checkpoint(folder)


TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no sound safetensors"),
        (safetensors(b"{}", length=1 << 40), "above the limit checkpoint_header_bytes"),
        (safetensors(b"{}", length=1_000_000), "no sound safetensors"),
        (safetensors(b"[" * 90_000), "no sound safetensors"),
        (safetensors(b"[]"), "no sound safetensors"),
        (safetensors(b'{"a": 3}'), "no sound safetensors"),
        (safetensors({"a": TENSOR}, bytes(23)), "no sound safetensors"),
        (safetensors({"a": TENSOR | {"data_offsets": [0, 1 << 50]}}, bytes(24)), "no sound safetensors"),
        (safetensors({"a": TENSOR | {"data_offsets": [24, 0]}}, bytes(24)), "no sound safetensors"),
        (safetensors({"a": TENSOR | {"shape": [1 << 40, 1 << 40]}}, bytes(24)), "no sound safetensors"),
        (safetensors({"a": TENSOR | {"shape": [2.0, 3]}}, bytes(24)), "no sound safetensors"),
        (safetensors({"a": TENSOR | {"dtype": "PICKLE"}}, bytes(24)), "no sound safetensors"),
        (safetensors({"a": TENSOR, "b": TENSOR}, bytes(24)), "no sound safetensors"),
        (
            safetensors({"a": {"dtype": "BOOL", "shape": [3_000_000], "data_offsets": [0, 3_000_000]}}, bytes(3_000_000)),
            "above the limit checkpoint_rows: at most 2,000,000 rows",
        ),
    ],
)  # fmt: skip
def test_weights_whose_header_lies_are_refused(folder, content, said) -> None:
    refused(put(folder, HEAD, content), said)


def test_a_zip_bomb_and_an_endless_number_are_never_read(folder) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(50_000_000))
    refused(put(folder, "more.json", buffer.getvalue()), r"more\.json is an archive")
    refused(put(folder, "more.json", "9" * 5_000), r"more\.json can't be read as JSON")


# --- files that are sound one by one and do not fit together


def test_weights_that_are_missing_are_not_drawn_at_random(folder) -> None:
    tensors = load_file(folder / WEIGHTS)
    dropped = next(name for name in tensors if name.endswith("q_proj.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != dropped}, folder / WEIGHTS, {"format": "pt"})
    refused(folder, r"lacks the weights .*q_proj\.weight")


def test_weights_that_are_no_numbers_are_told(folder) -> None:
    head = load_file(folder / HEAD)
    save_file(head | {"bias": head["bias"] * torch.nan}, folder / HEAD)
    refused(folder, r"\(bias\)")
    save_file(head, folder / HEAD)
    tensors = load_file(folder / WEIGHTS)
    norm = tensors["model.norm.weight"] * torch.inf
    save_file(tensors | {"model.norm.weight": norm}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match="its weights are damaged"):
        Engine.load(hashed(folder)).rank(Patient([Visit(["428.0"])]))


def test_weights_of_another_size_than_the_configuration_says_are_not_drawn_at_random(folder) -> None:
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    refused(put_json(folder, "config.json", vocab_size=rows - 8), "do not fit together")


def test_a_tokenizer_without_padding_is_taken(folder) -> None:
    put_json(folder, "tokenizer_config.json", pad_token=None)
    assert load_checkpoint(hashed(folder))[0].vocabulary.pad is not None
