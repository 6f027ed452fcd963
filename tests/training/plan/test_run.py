"""What a plan counts is what real models hold: published totals, saved files, kept activations; and what it says of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from typer.testing import CliRunner

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from tests.tiny import tiny_vocabulary
from tests.training.families import FAMILIES, small_book, write_backbone
from training.__main__ import app
from training.common import tuning
from training.common.config import MemorizeConfig, RankConfig
from training.memorize import questions
from training.memorize import run as memorize
from training.memorize.questions import code_set
from training.plan import memory as plan_memory
from training.plan import run as plan
from training.plan.architecture import Architecture, kept_bytes, shape_of
from training.plan.memory import CohortSize, lighter, memory_of
from training.plan.run import Machine, make, make_all

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "training" / "configs"
PUBLISHED = {  # parameters, from each model's page on the Hugging Face hub or its paper
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "BioMistral/BioMistral-7B": 7_241_732_096,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "google/gemma-7b": 8_537_680_896,
    "google/gemma-2-9b": 9_241_705_984,
    "google-t5/t5-large": 737_668_096,
    "google/flan-t5-large": 783_150_080,
    "google/flan-t5-xl": 2_849_757_184,
    "google/flan-t5-xxl": 11_135_332_352,
}
SEVEN_B = MemorizeConfig(backbone="meta-llama/Llama-2-7b-hf", precision="bfloat16", batch_size=64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("backbones")
    return {family: write_backbone(where / family, family) for family in FAMILIES}


# --- counted


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_number_of_parameters(name) -> None:
    found = Architecture.find(name)
    shape = shape_of(found, found.words + 64, found.words)
    assert shape.base_parameters == PUBLISHED[name]
    assert shape.parameters - shape.base_parameters == 64 * shape.width * shape.tables


@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_model_has_the_counted_parameters_adapters_and_file(folders, family, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: small_book())
    found = Architecture.find(str(folders[family]))
    config = MemorizeConfig(backbone=str(folders[family]))
    model, _ = memorize.build(config, Ontology.load())
    rows = model.backbone.get_input_embeddings().weight.shape[0]
    shape = shape_of(found, rows, found.words)
    real = sum(p.numel() for p in {id(p): p for p in model.backbone.parameters()}.values())
    assert shape.parameters == real
    manifest = memorize.manifest_of(config, "x", Ontology.load())
    tuning.save(model, manifest, tmp_path / "out", config, torch.float32)
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size == pytest.approx(plan.checkpoint_bytes(config, shape), rel=0.02)

    adapted = MemorizeConfig(backbone=str(folders[family]), tuning="lora", lora_rank=8)
    model, _ = memorize.build(adapted, Ontology.load())
    lora = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    assert lora == shape.adapter_numbers(8)


@pytest.mark.parametrize("family", ["llama", "gemma", "t5"])
@pytest.mark.parametrize(("precision", "rank"), [("float32", 0), ("bfloat16", 0), ("bfloat16", 8)])
def test_activations_of_four_layers_are_foretold_from_two(folders, family, precision, rank) -> None:
    """Against a real forward pass, with storage, of a deeper model: what autograd keeps of it."""
    found = Architecture.find(str(folders[family]))
    for name in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
        if hasattr(found.config, name):
            setattr(found.config, name, 4)
    if getattr(found.config, "layer_types", None):
        found.config.layer_types = [found.config.layer_types[0]] * 4
    model = found.build(dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32).train()
    if rank:
        model = inject_adapter_in_model(LoraConfig(r=rank, target_modules="all-linear"), model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    weights, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = torch.randn(4, 96, 64, dtype=next(model.parameters()).dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if found.config.is_encoder_decoder:
            read = model.get_encoder()(inputs_embeds=inputs).last_hidden_state
            start = torch.zeros(4, 1, dtype=torch.long)
            out = model.get_decoder()(input_ids=start, encoder_hidden_states=read, use_cache=False)
        else:
            out = model.base_model(inputs_embeds=inputs, use_cache=False)
    expected = sum(kept.values())
    assert out.last_hidden_state.requires_grad
    found = Architecture(f"{found.name} {precision} {rank}", found.config)
    # keys and values of grouped heads are counted once a head, which some kernels do and others do not
    assert 0.95 * expected < kept_bytes(found, precision, rank, False, False, 4, 96) < 1.2 * expected
    less = kept_bytes(found, precision, rank, False, True, 4, 96)
    assert less < 0.5 * expected


PEAK = """
import os, sys, torch
from tests.tiny import tiny_model, tiny_vocabulary
from mera_core.model.losses import Hierarchy
from mera_core.icd.ontology import Ontology
from training.rank import run as rank
from training.memorize.loss import answer_loss
from training.common.config import RankConfig

torch.set_num_threads(1)
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def peak(step, *args):
    step(4)
    open("/proc/self/clear_refs", "w").write("5")  # forget the highest memory use so far
    before = status("VmRSS")
    entries = step(*args)
    return (status("VmHWM") - before) / entries
book = Ontology.load()
labels = tuple(sorted(book.billable("ICD9")))
vocabulary = tiny_vocabulary([node.code for node in book.nodes("ICD9")])
model, hierarchy, config = tiny_model(labels, vocabulary), Hierarchy.from_ontology(labels, book), RankConfig()
def scores(n):
    positive = torch.zeros(n, len(labels), dtype=torch.bool)
    positive[torch.arange(n), torch.arange(n)] = True
    states = torch.randn(n, 32, requires_grad=True)
    batch = {"seen": torch.zeros(0, 6), "positive": positive}
    rank.target_losses(model, states, batch, hierarchy, config).sum().backward()
    return n * len(labels)
def codes(n):
    part = {"input_ids": torch.full((n, 1), 9), "labels": torch.full((n, 1), vocabulary.eov + 50)}
    asked = {"questions": [part], "answers": torch.tensor([0.0, n]), "against": torch.zeros(0, dtype=torch.long)}
    answer_loss(model, asked, [torch.randn(n, 1, 32, requires_grad=True)]).backward()
    return n * len(vocabulary)
print(peak(scores, 500), peak(codes, 500))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_bytes_a_score_and_a_logit_are_what_the_losses_take() -> None:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    scores, logits = map(float, done.stdout.split())
    assert scores == pytest.approx(plan_memory.BYTES_A_SCORE, rel=0.3)
    assert logits == pytest.approx(plan_memory.BYTES_A_LOGIT, rel=0.5)


# --- what settings save


def needed(config: MemorizeConfig | RankConfig) -> plan_memory.Memory:
    first = config if isinstance(config, MemorizeConfig) else SEVEN_B
    return memory_of(config, first, plan.backbone_shape(first), CohortSize())


def test_seven_billion_parameters_in_each_form() -> None:
    full = needed(SEVEN_B)
    parameters = plan.backbone_shape(SEVEN_B).parameters
    assert parameters == 6_738_415_616 + 2 * 4096 * (49_792 - 32_000)
    assert full.weights == 2 * parameters == full.gradients and full.optimizer == 4 * parameters
    mixed = needed(replace(SEVEN_B, precision="mixed"))
    assert mixed.weights > 4 * parameters and mixed.optimizer == 8 * parameters
    paged = needed(replace(SEVEN_B, optimizer="paged_adamw_8bit"))
    assert paged.optimizer == 0 and paged.paged == pytest.approx(2.03 * parameters, rel=0.01)
    lora = needed(replace(SEVEN_B, tuning="lora"))
    qlora = needed(replace(SEVEN_B, tuning="qlora"))
    assert full.total > lora.total > qlora.total
    assert lora.weights - qlora.weights == pytest.approx(6.476e9 * (2 - 0.5625), rel=0.01)  # the body's matrices
    less = needed(replace(SEVEN_B, gradient_checkpointing=True))
    assert less.activations < 0.15 * full.activations and less.weights == full.weights
    ranked = RankConfig(tuning="qlora", precision="bfloat16")
    whole, few = (
        memory_of(each, SEVEN_B, plan.backbone_shape(SEVEN_B), CohortSize(labels=100_000)).logits
        for each in (ranked, replace(ranked, target_chunk_size=8))
    )
    assert whole - few == pytest.approx(plan_memory.BYTES_A_SCORE * 100_000 * (64 * 1.66 - 8), rel=0.01)


def test_advice_names_the_first_change_that_fits() -> None:
    shape = plan.backbone_shape(SEVEN_B)

    def said(gpu_gb: float) -> str:
        return plan_memory.advice(SEVEN_B, SEVEN_B, shape, CohortSize(), gpu_gb)

    assert said(1000) == "" and plan_memory.advice(SEVEN_B, SEVEN_B, shape, CohortSize(), None) == ""
    assert said(24).startswith("try QLoRA") or said(24).startswith("try LoRA")
    assert "smaller backbone" in said(2)
    totals = [memory_of(changed, SEVEN_B, shape, CohortSize()).total for _, changed in lighter(SEVEN_B)]
    assert totals == sorted(totals, reverse=True)
    for gpu_gb in (12, 16, 24, 40):
        words = said(gpu_gb)
        assert float(words.rpartition("(")[2].split()[0]) <= gpu_gb


# --- work


def test_steps_and_tokens_by_hand(tmp_path) -> None:
    path = tmp_path / "rank.yaml"
    path.write_text("start: x\nepochs: 2\nbatch_size: 10\nmax_tokens: 512\n", encoding="utf-8")
    cohort = CohortSize(patients=100, visits=3, codes=8)
    made = make(path, cohort, Machine(), SEVEN_B)
    assert made.steps == 20 and made.tokens == 2 * 100 * (12 + 3 * (12 + 8))
    path.write_text("start: x\nepochs: 2\nbatch_size: 10\nprefix_samples: true\n", encoding="utf-8")
    assert make(path, cohort, Machine(), SEVEN_B).tokens == 2 * 100 * 2 * (12 + 1.5 * 20)


def test_epochs_with_encoded_rows_are_steps_of_their_own(tmp_path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("epochs: 3\n", encoding="utf-8")
    without = make(path, CohortSize(), Machine(tokens_per_second=1000))
    assert without.hours == pytest.approx(without.tokens / 1000 / 3600)
    assert make(path, CohortSize(), Machine(None, 4, 1000)).hours == pytest.approx(without.hours / 4)
    path.write_text("epochs: 3\nencoded_epochs: 2\n", encoding="utf-8")
    both, counts = make(path, CohortSize(), Machine()), plan_memory.Questions.of(("ICD9",))
    assert 14_567 < counts.backwards < counts.nodes
    assert both.steps - without.steps == 2 * counts.backwards // MemorizeConfig().batch_size
    a_code = 2 * plan_memory.definition_tokens(MemorizeConfig()) + plan_memory.QUESTION_TOKENS
    assert both.tokens - without.tokens == pytest.approx(2 * counts.backwards * a_code, 1e-6)


def test_a_stage_1_that_goes_on_has_the_shape_of_the_one_before() -> None:
    paths = [CONFIGS / f"mera-icd10-{name}.yaml" for name in ("memorize", "maps", "rows", "rank")]
    made = make_all(paths, CohortSize(), Machine())
    assert len({one.parameters for one in made}) == 1 and [one.stage for one in made] == ["memorize"] * 3 + ["rank"]
    assert made[0].backbone == "small LLaMA from scratch" and made[1].backbone == "small LLaMA gone on from"
    assert [one.epochs_on_missed for one in made] == [6, 0, 10, 0]
    assert made[1].steps == pytest.approx(0.5 * plan_memory.questions_a_pass(MemorizeConfig.load(paths[1])) / 128, 0.01)
    with pytest.raises(InputError, match="goes on from a stage 1: name the configuration of that"):
        make(paths[1], CohortSize(), Machine())


def test_stage_1_asks_as_many_questions_as_training_does() -> None:
    config, rows = (
        replace(MemorizeConfig.load(CONFIGS / f"mera-icd10-{name}.yaml"), systems=("ICD9",))
        for name in ("maps", "rows")
    )
    nodes = list(code_set(Ontology.load(), ("ICD9",)))
    sampler = questions.QuestionSampler(tiny_vocabulary(nodes), Ontology.load(), nodes, with_equivalents=True)
    for shares in ((config.backwards_share, config.hierarchy_share, config.equivalents_share), (0.5, 0.75, 0)):
        names = ("backwards_share", "hierarchy_share", "equivalents_share")
        asked = replace(config, **dict(zip(names, shares, strict=True)))
        drawn = sampler.one_pass(random.Random(0), *shares)
        assert plan_memory.questions_a_pass(asked) == pytest.approx(len(drawn), rel=0.01)
    assert plan_memory.questions_a_pass(rows) == len(sampler.backwards) + len(sampler.equivalents)


# --- said


def test_every_shipped_configuration_has_a_plan() -> None:
    found = sorted(CONFIGS.glob("*-memorize*.yaml"))
    assert len(found) >= 5
    for first in found:
        both = [path for path in (first, CONFIGS / first.name.replace("memorize", "rank")) if path.is_file()]
        made = make_all(both, CohortSize(), Machine())
        assert [one.stage for one in made] == ["memorize", "rank"][: len(both)]
        assert all(one.memory.total > 1e9 and one.tokens > 0 and one.steps > 0 for one in made)


def test_the_command_says_what_is_needed_and_what_to_try() -> None:
    config = str(CONFIGS / "llama2-7b-memorize-full.yaml")
    done = CliRunner().invoke(app, ["plan", "--config", config, "--gpu-memory", "24", "--tokens-per-second", "3000"])
    assert done.exit_code == 0, done.output
    assert "6.74 B parameters" in done.output and "you have 24" in done.output and "try " in done.output
    assert "h at 3,000 tokens/s" in done.output
    done = CliRunner().invoke(app, ["plan", "--config", config, "--json"])
    (values,) = json.loads(done.output)
    assert values["base_parameters"] == 6_738_415_616
    assert values["memory"]["total"] > values["memory"]["weights"] > 27e9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: no/such-model\n", "There is no language model no/such-model"),
        ("start: x\n", "name that of its stage 1 before it"),
        ("sead: 1\n", "sead is not a known"),
    ],
)
def test_a_plan_that_can_not_be_made_says_why(tmp_path, text, message) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        make(path, CohortSize(), Machine())


def test_sizes_and_machines_that_make_no_sense() -> None:
    for value in (float("nan"), float("inf"), -2.0):
        for told in ((value, 1, None), (24.0, 1, value)):
            with pytest.raises(InputError, match="must be above 0"):
                Machine.of(*told)
        with pytest.raises(InputError, match="must be above 0"):
            CohortSize(visits=value)
