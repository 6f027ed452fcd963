"""The sections `train` and `serve` of the benchmark at a small size: every figure is there, and measures what it says."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mera_core.checkpoint.folder import save_checkpoint
from mera_core.engine import Engine
from mera_core.icd.ontology import Ontology
from tests.tiny import tiny_manifest, tiny_model, tiny_vocabulary
from tests.training.rank.test_batches import many
from training.benchmark import agreement, gpu_7b, large_labels, precisions, sample_forms, serve, train_step
from training.benchmark.invented import VISITS, patients
from training.benchmark.rows import Setting, checked


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint of random weights, 64 wide as 4 bits need, that ranks 61 codes."""
    labels = tuple(sorted(Ontology.load().billable("ICD9"))[::240])
    folder = tmp_path_factory.mktemp("wide") / "wide"
    model = tiny_model(labels, tiny_vocabulary(labels), hidden_size=64)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    save_checkpoint(model, tiny_manifest(labels), folder)
    return folder


def rows(section, name: str, checkpoint) -> dict[str, dict]:
    made = [checked(row, name) for row in section.measure(Setting(quick=True, checkpoint=checkpoint))]
    assert len({row["what"] for row in made}) == len(made)
    return {row["what"]: row for row in made}


def test_invented_histories_have_the_shape_of_ucis() -> None:
    made = patients(4000, many()[0].visits[0].codes)
    visits = [len(patient.visits) for patient in made]
    assert min(visits) == 2 and sum(visits) / len(visits) == pytest.approx(2.81, abs=0.1)
    assert sum(count == 2 for count in visits) / len(visits) == pytest.approx(VISITS[2] / 1000, abs=0.03)


@pytest.mark.slow
def test_every_figure_of_training(wide) -> None:
    made = rows(train_step, "train", wide)
    step = next(row for what, row in made.items() if "hierarchical" in what)
    assert step["labels"] == 14567 and step["ratio"] > 0
    tokens = next(row for what, row in made.items() if what.startswith("tokens trained on, 14,567"))
    assert tokens["unit"] == "tokens/s" and tokens["value"] > 0 and tokens["against_value"] > 0
    forms = rows(sample_forms, "forms", wide)
    assert len(forms) == 3
    for form in forms.values():
        assert form["tokens"] < form["tokens_with_prefixes"] and form["targets"] > 0
    assert any("peak memory" in what for what in rows(large_labels, "labels", wide))


def test_both_forms_of_samples_ask_the_same_and_a_step_learns() -> None:
    """What the rows on training pair: the same targets, and steps that move the weights."""
    book = Ontology.load()
    people = patients(30, book.billable("ICD9"))
    labels = sample_forms.labels_of(people)
    model = tiny_model(labels, tiny_vocabulary(labels))
    one_pass, prefixes = (
        train_step.Steps(model, book, replace(train_step.HCL, prefix_samples=form), people) for form in (False, True)
    )
    assert one_pass.targets == prefixes.targets == sum(len(person.visits) - 1 for person in people)
    assert sample_forms.tokens_of(one_pass) < sample_forms.tokens_of(prefixes)
    before = model.head.bias.detach().clone()
    assert one_pass.one_pass() > 0 and not torch.equal(before, model.head.bias)


def test_every_figure_of_serving(wide) -> None:
    precise = rows(precisions, "precision", wide)
    assert {*precise} == {*(f"rank() in {q}" for q in ("nf4", "int8", "bf16")), "rank() in nf4, beside bf16"}
    for row in precise.values():
        assert 0.5 < row["rank_correlation"] <= 1 and 0 < row["top_20_in_common"] <= 1
    halves = precise["rank() in nf4, beside bf16"]
    assert halves["against"] == "bf16" and halves["weights_mb"] > 0 < halves["weights_mb_bf16"]
    made = rows(serve, "serve", wide)
    shared = [row for what, row in made.items() if "computed once" in what]
    assert len(shared) == 2 and all(row["largest_difference"] < 1e-4 for row in shared)
    assert len([what for what in made if what.startswith("20 codes decoded")]) == 3


def test_a_decoded_list_is_what_its_steps_say(wide) -> None:
    """Decoding with the past kept chooses what decoding anew at each step chooses."""
    from training.rank.baseline_decoding import decode

    engine = Engine.load(wide)
    read = serve.histories_of(engine, patients(6, serve.codes_of(engine)))
    anew = decode(engine, read)
    assert [serve.decoded(engine, one, 40, True) for one in read] == anew
    one = serve.decoded(engine, read[0], 20)
    assert len(one) == len(set(one)) == 20 and one == serve.decoded(engine, read[0], 20, keep=False)
    assert len(serve.generated(engine, read[0])) == 20


def test_lists_agree_as_far_as_their_places_do() -> None:
    one = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    other = np.array([[1, 0, 2, 3], [3, 2, 1, 0]])
    assert agreement.rank_correlation(one, one) == 1 and agreement.rank_correlation(one, one[:, ::-1]) == -1
    assert agreement.rank_correlation(one, other) == pytest.approx((0.8 + 1) / 2)
    assert agreement.in_common(one, other, first=1) == 0.5 and agreement.in_common(one, other, first=2) == 1


def test_without_a_gpu_the_section_says_so_in_every_row(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = rows(gpu_7b, "gpu", "nowhere")
    assert len(made) == 9 and all(what.endswith(": not run: no GPU") for what in made)
    assert {row["value"] for row in made.values()} == {None}


def test_no_figure_is_begun_that_the_time_is_too_short_for(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = list(gpu_7b.measure(Setting(quick=True), gpu_7b.Clock(minutes=0.5)))
    assert len(made) == 9 and all(row["what"].endswith(gpu_7b.NO_TIME) for row in made)
    monkeypatch.undo()
    slow = lambda: time.sleep(0.02)  # noqa: E731
    assert len(gpu_7b.timed(slow, 10, gpu_7b.Clock(minutes=0))) == 1 and len(gpu_7b.timed(slow, 3)) == 3


def test_qlora_of_the_benchmark_trains_adapters_and_code_rows() -> None:
    shape = gpu_7b.SMALL
    model = gpu_7b.random_backbone(shape, "cpu", True, torch.float32)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    gpu_7b.put_adapters(model, shape)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows_trained = [p for name, p in trained.items() if "lora_" not in name]
    assert sorted(p.shape for p in rows_trained) == [(shape.codes, shape.hidden)] * 2
    before = [p.detach().clone() for p in trained.values()]
    gpu_7b.training_step(model, shape, 2, torch.optim.SGD(trained.values(), lr=1.0))
    moved = [not torch.equal(one, p) for one, p in zip(before, trained.values(), strict=True)]
    assert sum(moved) >= len(moved) / 2  # lora_A starts to move in the second step
    assert all(m for m, name in zip(moved, trained, strict=True) if "lora_A" not in name)


@pytest.mark.parametrize("four_bit", [False, True])
def test_shapes_of_random_weights_score_and_train_on_a_cpu(four_bit) -> None:
    """The code that a GPU runs at 7B, at a size that a CPU runs."""
    model = gpu_7b.random_backbone(gpu_7b.SMALL, "cpu", four_bit, torch.float32)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert sum("Linear4bit" in type(module).__name__ for module in model.modules()) == (14 if four_bit else 0)
    order = gpu_7b.scored(model, gpu_7b.SMALL, 2)
    assert sorted(order[0].tolist()) == list(range(gpu_7b.SMALL.labels))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = model.lm_head.weight.detach().clone()
    gpu_7b.training_step(model, gpu_7b.SMALL, 2, optimizer)
    assert torch.isfinite(model.lm_head.weight).all() and not torch.equal(model.lm_head.weight, before)


def test_the_operations_of_llama_2_7b() -> None:
    body = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert body == pytest.approx(6.48e9, rel=1e-2)  # 6.74e9 weights less the two tables of 32,000 rows
    assert gpu_7b.operations_a_token(gpu_7b.LLAMA_7B, False) == pytest.approx(6 * body, rel=0.01)
    assert gpu_7b.operations_a_token(gpu_7b.LLAMA_7B, True) < gpu_7b.operations_a_token(gpu_7b.LLAMA_7B, False)
    assert gpu_7b.peak_of("NVIDIA H100 80GB HBM3") == 989e12 and gpu_7b.peak_of("Some GPU") is None
