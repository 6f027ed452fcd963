"""Full, LoRA and QLoRA tuning: what trains, that it learns, goes on after a kill, comes back the same, merges and exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from mera_core.checkpoint.folder import load_checkpoint, read_manifest
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.icd.ontology import Ontology
from mera_core.model.network import MeraModel
from tests.training.common.one_process import KillAt, Killed
from tests.training.families import PATIENTS, fixed_loss, loss_of, small_book, write_backbone
from training.common import adapters, tuning
from training.common.config import MemorizeConfig, RankConfig
from training.memorize import run as memorize
from training.rank import run as rank
from training.release import export

BOOK = Ontology.load()
FAMILIES = ("llama", "qwen2", "t5", "flan-t5")
pytestmark = pytest.mark.usefixtures("_small_book")


def first(folder: Path, **settings) -> MemorizeConfig:
    """Stage 1 on the small book: 30 steps."""
    values = {"backbone": str(folder), "epochs": 3, "batch_size": 32, "learning_rate": 1e-2, "sampled_negatives": 32}
    return MemorizeConfig(**(values | {"save_every": 0} | settings))


def second(start: Path, data: Path, **settings) -> RankConfig:
    """Stage 2 on the invented patients."""
    values = {"start": str(start), "data": str(data), "format": "table", "epochs": 1, "batch_size": 16}
    return RankConfig(**(values | {"learning_rate": 5e-3, "rehearsal": 8, "save_every": 0} | settings))


def engine(model: MeraModel, manifest) -> Engine:
    return Engine(model.eval(), manifest, BOOK)


def assert_same_ranking(one: Engine, other: Engine, tolerance: float) -> None:
    for mine, theirs in zip(one.rank_many(PATIENTS), other.rank_many(PATIENTS), strict=True):
        assert theirs.scores == pytest.approx(mine.scores, abs=tolerance)
        if tolerance < 1e-4:
            assert mine.codes == theirs.codes
        assert set(mine.codes[:5]) & set(theirs.codes[:7])


# --- what is put on


@pytest.mark.parametrize("tuned", ["lora", "qlora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_new_adapters_change_nothing_and_only_they_and_the_code_rows_train(folders, family, tuned) -> None:
    plain, _ = memorize.build(first(folders[family]), BOOK)
    model, _ = memorize.build(first(folders[family], tuning=tuned), BOOK)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in trained)
    assert all(p.dtype == torch.float32 for p in trained.values())
    rows = [p for name, p in trained.items() if "trainable_tokens_delta" in name]
    assert len(rows) == (2 if family in ("llama", "flan-t5") else 1)  # a table each, or one that is both
    assert all(p.shape == (1 + len(small_book()), 64) for p in rows)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained if ".lora_" in name}
    expected = {"q", "k", "v", "o", "wo"} if "t5" in family else {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj"}
    assert expected <= adapted and "lm_head" not in adapted
    if tuned == "lora":
        ids = torch.tensor([[9, 30, model.vocabulary.eov + 3, 7]])
        with torch.inference_mode():
            one, other = (m.eval().hidden(ids) for m in (plain, model))
            assert torch.allclose(one, other, atol=1e-5)
            tokens = slice(0, len(model.vocabulary))
            assert torch.allclose(plain.logits(one, tokens), model.logits(other, tokens), atol=1e-4)
    else:
        kinds = {type(module).__name__ for module in model.backbone.modules()}
        assert "Linear4bit" in kinds


# --- both stages


@pytest.mark.parametrize(
    ("family", "tuned"),
    [("llama", "lora"), ("llama", "qlora"), ("qwen2", "lora"), ("t5", "lora"), ("flan-t5", "qlora")],
)
def test_both_stages_learn_come_back_the_same_and_merge(folders, family, tuned, invented_cohort, tmp_path, monkeypatch):
    settings = first(folders[family], tuning=tuned)
    before = fixed_loss(memorize.build(settings, BOOK)[0].eval())
    memorize.run(settings, tmp_path / "stage1")
    stage1, _ = adapters.load(tmp_path / "stage1")
    assert fixed_loss(stage1) < 0.9 * before

    kept, real = {}, tuning.save

    def save(model, manifest, folder, config, dtype):
        kept["engine"] = engine(model, real(model, manifest, folder, config, dtype))
        return read_manifest(folder)

    monkeypatch.setattr(tuning, "save", save)
    config = second(tmp_path / "stage1", invented_cohort, tuning=tuned, prefix_samples="t5" in family)
    rank.run(config, tmp_path / "stage2")
    assert_same_ranking(kept["engine"], engine(*adapters.load(tmp_path / "stage2")), 1e-6)
    told = read_manifest(tmp_path / "stage2")
    assert told.stage == "rank" and told.method["adapters"]["tuning"] == tuned and "cut" in told.method
    assert (tmp_path / "stage2" / adapters.WEIGHTS).stat().st_size < 1_000_000

    export.merge(tmp_path / "stage2", tmp_path / "merged", dtype="float32")
    merged = Engine.load(tmp_path / "merged")
    assert_same_ranking(kept["engine"], merged, 2e-3)
    if family == "qwen2":  # words stay as they were
        old = load_file(folders[family] / "model.safetensors")["model.embed_tokens.weight"]
        table, words = merged.model.backbone.get_input_embeddings().weight, merged.model.vocabulary.n_words
        assert torch.equal(table[:words], old[:words])
    assert "adapters" not in merged.manifest["method"] and merged.manifest["method"]["merged"]["tuning"] == tuned
    assert not any("lora" in name for name, _ in merged.model.named_parameters())


def test_adapters_on_a_whole_stage_1_model(folders, invented_cohort, tmp_path) -> None:
    memorize.run(first(folders["llama"], epochs=2), tmp_path / "stage1")
    config = second(tmp_path / "stage1", invented_cohort, tuning="lora")
    rank.run(config, tmp_path / "stage2")
    assert read_manifest(tmp_path / "stage2").method["adapters"]["base"] == str(tmp_path / "stage1")
    loaded = engine(*adapters.load(tmp_path / "stage2"))
    export.merge(tmp_path / "stage2", tmp_path / "merged", dtype="float32")
    assert_same_ranking(loaded, Engine.load(tmp_path / "merged"), 1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16", "gradient_checkpointing": True},
        {"precision": "mixed"},
        {"optimizer": "adamw_8bit"},
        {"tuning": "lora", "optimizer": "adamw_8bit", "gradient_checkpointing": True, "precision": "bfloat16"},
        {"tuning": "qlora", "gradient_checkpointing": True, "lora_targets": ("q_proj", "v_proj"), "epochs": 5},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_other_ways_to_save_memory_learn_too(folders, settings, tmp_path) -> None:
    config = first(folders["llama"], **settings)
    before = fixed_loss(memorize.build(config, BOOK)[0].eval())
    memorize.run(config, tmp_path / "stage1")
    if config.tuning == "full":
        model, _ = load_checkpoint(tmp_path / "stage1")
        stored = load_file(tmp_path / "stage1" / "model.safetensors")["model.norm.weight"].dtype
        assert stored == (torch.bfloat16 if config.precision == "bfloat16" else torch.float32)
    else:
        model, _ = adapters.load(tmp_path / "stage1")
    assert fixed_loss(model) < 0.9 * before


def gradients(model: MeraModel) -> dict[str, torch.Tensor]:
    loss_of(model, 16, 8).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_gradients_are_the_same_with_checkpointing(folders) -> None:
    found = []
    for checkpointing in (False, True):
        config = first(folders["llama"], gradient_checkpointing=checkpointing)
        model, _ = memorize.build(config, BOOK)
        tuning.prepare(model, config)
        found.append(gradients(model.train()))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


# --- resume


@pytest.mark.parametrize("tuned", ["lora", "qlora"])
def test_a_killed_run_of_adapters_goes_on(folders, tuned, tmp_path, monkeypatch) -> None:
    config = first(folders["llama"], tuning=tuned, epochs=1, save_every=2)
    memorize.run(config, tmp_path / "unbroken")
    real = memorize.run_trainer
    with monkeypatch.context() as patch:
        patch.setattr(memorize, "run_trainer", lambda *a, **k: real(*a, **(k | {"callbacks": [KillAt(4)]})))
        with pytest.raises(Killed):
            memorize.run(config, tmp_path / "killed")
    memorize.run(config, tmp_path / "killed")
    one, other = (load_file(tmp_path / name / adapters.WEIGHTS) for name in ("unbroken", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- export


@pytest.mark.parametrize("family", ["llama", "qwen2", "t5", "flan-t5"])
def test_the_plain_folder_loads_without_mera_and_computes_the_same(folders, family, tmp_path) -> None:
    memorize.run(first(folders[family], epochs=1), tmp_path / "stage1")
    export.export(tmp_path / "stage1", tmp_path / "plain")
    kind = AutoModelForSeq2SeqLM if "t5" in family else AutoModelForCausalLM
    plain, tokenizer = kind.from_pretrained(tmp_path / "plain"), AutoTokenizer.from_pretrained(tmp_path / "plain")
    model, _ = load_checkpoint(tmp_path / "stage1")
    assert plain.get_input_embeddings().weight.shape[0] == len(tokenizer) == len(model.vocabulary)
    assert not (tmp_path / "plain" / "mera.json").exists()
    ids = torch.tensor([[9, 30, tokenizer.convert_tokens_to_ids("ICD9_428.0"), 7]])
    with torch.inference_mode():
        if model.encoder_decoder:
            found = plain(input_ids=ids, decoder_input_ids=torch.tensor([[model.decoder_start]])).logits[:, 0]
        else:
            found = plain(input_ids=ids).logits[:, -1]
        assert torch.allclose(found, model.logits(model.hidden(ids)[:, -1], slice(0, len(tokenizer))), atol=1e-4)
    assert "not for clinical decisions" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


# --- refused


@pytest.fixture(scope="module")
def lora(folders, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "stage1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorize, "code_set", lambda ontology, systems: small_book())
        memorize.run(first(folders["llama"], tuning="lora", epochs=0.1), folder)
    return folder


def test_the_engine_names_the_command_that_makes_adapters_whole(lora) -> None:
    with pytest.raises(InputError, match="python -m training merge"):
        Engine.load(lora)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tuning": "qlora"},
        {"tuning": "lora", "precision": "bfloat16"},
        {"tuning": "lora", "lora_dropout": 0.3},
        {"tuning": "lora", "lora_targets": ("q_proj",)},
    ],
)
def test_adapters_go_on_as_they_began(lora, settings) -> None:
    with pytest.raises(InputError, match="go on with the same settings"):
        rank.load_start(RankConfig(start=str(lora), data="x", **settings))


def test_adapters_with_the_same_settings_are_taken_up(lora, tmp_path) -> None:
    kept = {name: getattr(first(Path("x"), tuning="lora"), name) for name in adapters.KEPT}
    model, manifest = tuning.load_start(lora, RankConfig(start=str(lora), data="x", **kept))
    assert manifest.method["adapters"]["lora_targets"] == [] and model.backbone.peft_config
    older = Path(shutil.copytree(lora, tmp_path / "older"))  # of a version that told fewer of its settings
    told = json.loads((older / "mera.json").read_text())
    del told["method"]["adapters"]["lora_targets"]
    (older / "mera.json").write_text(json.dumps(told))
    tuning.load_start(older, RankConfig(start=str(older), data="x", **kept))


def test_another_base_is_refused(lora, folders, tmp_path) -> None:
    other = write_backbone(tmp_path / "other", "llama", seed=9)
    with pytest.raises(InputError, match="is not the one that the adapters"):
        adapters.load(lora, str(other))
    with pytest.raises(InputError, match="There is no base model"):
        adapters.load(lora, str(tmp_path / "nowhere"))
    moved = Path(shutil.copytree(folders["llama"], tmp_path / "moved"))
    assert adapters.load(lora, str(moved))[0].vocabulary.ids


def test_altered_adapters_are_refused(lora, tmp_path) -> None:
    folder = Path(shutil.copytree(lora, tmp_path / "copy"))
    content = bytearray((folder / adapters.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / adapters.WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        adapters.load(folder)


def test_a_whole_model_is_not_merged_and_adapters_are_not_exported(lora, folders, tmp_path) -> None:
    with pytest.raises(InputError, match="training merge"):
        export.export(lora, tmp_path / "plain")
    with pytest.raises(InputError, match='dtype is "int8"'):
        export.merge(lora, tmp_path / "merged", dtype="int8")
    with pytest.raises(InputError, match="name another folder"):
        export.merge(lora, lora)
    memorize.run(first(folders["llama"], epochs=0.1), tmp_path / "whole")
    with pytest.raises(InputError, match="holds a whole model and no adapters"):
        export.merge(tmp_path / "whole", tmp_path / "merged")


def test_targets_that_are_not_there_are_refused(folders) -> None:
    with pytest.raises(InputError, match="No adapters can be put on this backbone"):
        memorize.build(first(folders["llama"], tuning="lora", lora_targets=("no_such",)), BOOK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_paged_state_needs_a_gpu(folders, tmp_path) -> None:
    with pytest.raises(InputError, match="there is no GPU"):
        memorize.run(first(folders["llama"], optimizer="paged_adamw_8bit", epochs=0.1), tmp_path / "out")
