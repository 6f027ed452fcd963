"""Every family of backbones through the one interface: its own logits, rows for codes, both stages, and back from a folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mera_core.checkpoint.folder import load_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.icd.ontology import Ontology
from mera_core.model.network import MeraModel
from mera_core.model.vocabulary import Vocabulary
from tests.training.families import FAMILIES, PATIENTS, SIZES, fixed_loss, tokenizer_of
from training.common import backbone as backbones
from training.common import tuning
from training.common.config import MemorizeConfig, RankConfig
from training.memorize import questions
from training.memorize import run as memorize
from training.rank import run as rank

BOOK = Ontology.load()
ENCODER_DECODERS = {"t5", "flan-t5"}
UNTIED = {"llama", "mistral", "qwen3", "flan-t5"}
pytestmark = pytest.mark.usefixtures("_small_book")


def built(folders: dict, family: str, **settings) -> MeraModel:
    config = MemorizeConfig(backbone=str(folders[family]), **settings)
    return memorize.build(config, BOOK)[0].eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_architecture(folders, family) -> None:
    model = built(folders, family)
    ids = torch.tensor([[4, 9, 30, 12, 7], [8, 3, 60, 61, 62]])
    with torch.inference_mode():
        if model.encoder_decoder:
            answer = torch.tensor([[model.decoder_start, 5, 6], [model.decoder_start, 9, 2]])
            states = model.hidden_of_parts([ids], [answer])[0]
            expected = model.backbone(input_ids=ids, decoder_input_ids=answer).logits
            assert torch.allclose(model.hidden(ids), states[:, :1].expand(-1, 5, -1), atol=1e-5)
        else:
            states = model.hidden(ids)
            expected = model.backbone(input_ids=ids).logits
            assert torch.allclose(model.hidden_of_parts([ids])[0], states, atol=1e-5)
        assert torch.allclose(model.logits(states, slice(None)), expected, atol=1e-4)
        some = torch.tensor([3, 70, 5])
        assert torch.allclose(model.logits(states, some), expected[..., some], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_added_and_tables_stay_as_many_as_they_were(folders, family) -> None:
    plain, _ = backbones.load_backbone(str(folders[family]))
    model = built(folders, family)
    before = [plain.get_input_embeddings().weight, plain.get_output_embeddings().weight]
    after = [model.backbone.get_input_embeddings().weight, model.backbone.get_output_embeddings().weight]
    vocabulary = model.vocabulary
    assert (after[0] is after[1]) == (before[0] is before[1]) == (family not in UNTIED)
    for old, new in zip(before, after, strict=True):
        assert new.shape[0] % 64 == 0 and new.shape[0] - len(vocabulary) < 64
        assert torch.equal(new[: vocabulary.n_words], old[: vocabulary.n_words])  # no word has moved
        length = new[: vocabulary.n_words].norm(dim=1).mean()
        rows = new[list(vocabulary.ids.values())].norm(dim=1)
        assert torch.allclose(rows, length.expand_as(rows), rtol=1e-4)  # codes start from their definitions


@pytest.mark.parametrize("family", ["llama", "qwen2", "t5"])
def test_padding_changes_no_state(folders, family) -> None:
    model = built(folders, family)
    short = torch.tensor([[9, 30, 12, 7, model.vocabulary.eov]])
    long = torch.cat([short, torch.full((1, 4), model.vocabulary.pad)], 1)
    with torch.inference_mode():
        assert torch.allclose(model.hidden(short)[:, 4], model.hidden(long)[:, 4], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma", "t5", "flan-t5"])
def test_decoding_step_by_step_is_decoding_from_the_start(folders, family) -> None:
    model = built(folders, family)
    asked, answer = torch.tensor([[9, 30, 12, 7]]), []
    with torch.inference_mode():
        state, memory = model.step(asked)
        for _ in range(5):
            answer.append(int(model.logits(state, slice(0, model.vocabulary.n_words)).argmax()))
            state, memory = model.step(torch.tensor([answer[-1:]]), memory)
        part = questions.question_batch([(asked[0].tolist(), answer)], model.vocabulary.pad, model.decoder_start)
        whole = model.hidden_of_parts([part["input_ids"]], [part.get("decoder_ids")])[0][part["labels"] >= 0]
        greedy = model.logits(whole, slice(0, model.vocabulary.n_words)).argmax(-1)
    assert greedy.tolist() == answer


@pytest.mark.parametrize("family", FAMILIES)
def test_memorize_rank_save_load_rank(folders, family, invented_cohort, tmp_path, monkeypatch) -> None:
    first = MemorizeConfig(
        backbone=str(folders[family]),
        epochs=6,
        batch_size=32,
        learning_rate=3e-3,
        sampled_negatives=32,
        save_every=0,
    )
    before = fixed_loss(built(folders, family))
    memorize.run(first, tmp_path / "stage1")
    stage1, manifest = load_checkpoint(tmp_path / "stage1")
    assert fixed_loss(stage1) < 0.8 * before
    assert manifest.stage == "memorize" and stage1.encoder_decoder == (family in ENCODER_DECODERS)

    kept = {}
    real = tuning.save

    def save(model, manifest, folder, config, dtype):
        kept["engine"] = Engine(model.eval(), real(model, manifest, folder, config, torch.float32), BOOK)
        return kept["engine"].manifest

    monkeypatch.setattr(tuning, "save", save)
    second = RankConfig(
        start=str(tmp_path / "stage1"),
        data=str(invented_cohort),
        format="table",
        epochs=2,
        batch_size=16,
        learning_rate=2e-3,
        rehearsal=8,
        prefix_samples=family in ENCODER_DECODERS,
        save_every=0,
    )
    rank.run(second, tmp_path / "stage2")
    loaded = Engine.load(tmp_path / "stage2")
    for one, other in zip(kept["engine"].rank_many(PATIENTS), loaded.rank_many(PATIENTS), strict=True):
        assert one.codes == other.codes
        assert other.scores == pytest.approx(one.scores, abs=1e-5)
    tables = [loaded.model.backbone.get_input_embeddings().weight, loaded.model.backbone.get_output_embeddings().weight]
    assert (tables[0] is tables[1]) == (family not in UNTIED)


def test_an_architecture_that_scales_its_logits_is_refused(tmp_path) -> None:
    tokenizer = tokenizer_of("bytes")
    config = AutoConfig.for_model("granite", vocab_size=len(tokenizer), logits_scaling=8.0, **SIZES)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="GraniteForCausalLM changes its logits"):
        memorize.build(MemorizeConfig(backbone=str(tmp_path)), BOOK)


def test_a_backbone_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match=r"There is no language model .*nowhere"):
        backbones.load_backbone(str(tmp_path / "nowhere"))


def test_an_encoder_decoder_trains_on_one_sample_a_visit(folders, tmp_path) -> None:
    config = MemorizeConfig(backbone=str(folders["t5"]), epochs=0.1, save_every=0)
    memorize.run(config, tmp_path / "stage1")
    with pytest.raises(InputError, match="set prefix_samples to true"):
        rank.load_start(RankConfig(start=str(tmp_path / "stage1"), data="x"))


def test_histories_longer_than_the_backbone_reads_are_refused(folders, tmp_path) -> None:
    memorize.run(MemorizeConfig(backbone=str(folders["llama"]), epochs=0.1, save_every=0), tmp_path / "stage1")
    with pytest.raises(InputError, match=r"max_tokens is 600, and .* reads 512 tokens"):
        rank.load_start(RankConfig(start=str(tmp_path / "stage1"), data="x", max_tokens=600))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "flan-t5"])
def test_a_hundred_thousand_codes(folders, family, monkeypatch) -> None:
    monkeypatch.undo()
    model = built(folders, family, systems=("ICD9", "ICD10"))
    assert len(model.vocabulary.ids) > 115_000
    assert isinstance(model.vocabulary, Vocabulary) and len(model.vocabulary) == max(model.vocabulary.code_at) + 1
    for table in (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings()):
        assert table.weight.shape[0] >= len(model.vocabulary)
    with torch.inference_mode():
        states = model.hidden(torch.tensor([[9, 30, len(model.vocabulary) - 1]]))[:, -1]
        assert model.logits(states, slice(0, len(model.vocabulary))).isfinite().all()
