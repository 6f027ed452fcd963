"""Benchmarks: pairs are taken in turn, a row says what it is, it is in the file at once, and each section measures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mera_core.checkpoint.folder import save_checkpoint
from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from tests.tiny import tiny_manifest, tiny_model, tiny_vocabulary
from training import __main__ as cli
from training import benchmark
from training.benchmark import gpu_7b, precisions, train_step
from training.benchmark.invented import patients
from training.benchmark.machine import child_seconds
from training.benchmark.rows import Setting, line, paired, row

EVIDENCE = Path(__file__).resolve().parents[3] / "docs" / "evidence"
MACHINE = {"cores": 2, "memory_gb": 8.0, "gpu": None, "versions": {"python": "3"}}


@pytest.fixture
def section(monkeypatch):
    """A section of one figure."""
    made = SimpleNamespace(TITLE="Sleeping", measure=lambda setting: [row("nap", "s", "rest", [2.0], [1.0])])
    gpu = SimpleNamespace(TITLE="On a GPU", measure=refuse)
    monkeypatch.setattr(benchmark, "SECTIONS", {"gpu": "gpu", "sleep": "sleep"})
    monkeypatch.setattr(benchmark, "import_module", {"gpu": gpu, "sleep": made}.get)
    monkeypatch.setattr(benchmark, "machine", lambda: MACHINE)
    return made


def refuse(setting):
    raise InputError("there is no GPU.")


def command(monkeypatch, *words: str) -> int:
    """Run `python -m training benchmark` in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["training", "benchmark", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    return ended.value.code or 0


def test_pairs_are_taken_in_turn_and_the_ratio_is_the_median_of_each_pairs():
    calls = []

    def one(name: str, values: list[float]):
        return lambda: calls.append(name) or values.pop(0)

    took = paired(one("a", [9.0, 10.0, 30.0, 20.0]), one("b", [9.0, 5.0, 10.0, 2.0]), runs=3, warm=1)
    assert "".join(calls) == "abbaabba"
    made = row("convert", "s", "a scan", *took, rows=7)
    assert (made["value"], made["lowest"], made["highest"], made["runs"]) == (20.0, 10.0, 30.0, 3)
    assert (made["against_value"], made["ratio"], made["rows"]) == (5.0, 3.0, 7)  # of 2, 3 and 10; not 20 / 5


def test_each_row_is_in_the_file_when_the_next_is_measured(section, tmp_path):
    file, seen, told = tmp_path / "benchmark-sleep.json", [], []

    def measure(setting):
        for what in ("nap", "night"):
            seen.append(json.loads(file.read_text()) if file.exists() else None)
            yield row(what, "s", None, [2.0])
        raise InputError("woken.")

    [whole] = benchmark.run(["sleep"], Setting(), tmp_path, told.append)
    assert json.loads(file.read_text()) == whole and whole["complete"] and told == whole["rows"]
    file.unlink()
    section.measure = measure
    with pytest.raises(InputError, match="woken"):
        list(benchmark.run(["sleep"], Setting(), tmp_path))
    left = json.loads(file.read_text())
    assert seen[0] is None and [made["what"] for made in seen[1]["rows"]] == ["nap"]
    assert [made["what"] for made in left["rows"]] == ["nap", "night"] and left["complete"] is False
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("file", sorted(EVIDENCE.glob("benchmark-*.json")), ids=lambda path: path.stem)
def test_a_line_says_what_each_figure_is_of(file):
    for made in json.loads(file.read_text("utf-8"))["rows"]:
        said = line(made)
        assert said.startswith(made["what"])
        if made["value"] is not None:
            assert f"{made['value']:g} {made['unit']}" in said and f"{made.get('ratio', 1):.2f}" in said + " 1.00"


def test_the_command_prints_its_figures_and_leaves_out_what_cant_be_measured_here(
    section, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    for words, status in ((["--quick"], 0), (["--quick", "--sections", "gpu,sleep"], 2)):
        assert command(monkeypatch, *words) == status
        said = capsys.readouterr()
        assert "there is no GPU." in said.err
        assert ("nap" in said.out and "2.00" in said.out and "Nothing is written" in said.out) == (status == 0)
    for given in (",", "", " , "):
        assert command(monkeypatch, "--sections", given, "--out", str(tmp_path)) == 2
        assert "--sections names none; there are gpu, sleep." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no benchmark section 'naps'; there are gpu, sleep"):
        list(benchmark.run(["naps"], Setting()))
    with pytest.raises(InputError, match="There is no folder"):
        list(benchmark.run(["sleep"], Setting(), tmp_path / "none"))


def test_a_childs_seconds_are_measured_and_its_failure_told():
    assert 0.3 < child_seconds([sys.executable, "-c", "import time; time.sleep(0.3)"]) < 60
    with pytest.raises(InputError, match="status 3: no such luck"):
        child_seconds([sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"])


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


def measured(name: str, checkpoint: Path, tmp_path: Path) -> dict[str, dict]:
    """The rows of a section at a small size, by what they are; each of them is JSON."""
    [result] = benchmark.run([name], Setting(quick=True, checkpoint=checkpoint), tmp_path)
    assert json.loads((tmp_path / f"benchmark-{name}.json").read_text()) == result
    rows = {made["what"]: made for made in result["rows"]}
    assert len(rows) == len(result["rows"])
    return rows


def test_every_figure_of_serving(wide, tmp_path):
    rows = measured("precision", wide, tmp_path)
    assert {*rows} == {*(f"rank() in {q}" for q in ("nf4", "int8", "bf16")), "rank() in nf4, beside bf16"}
    for made in rows.values():
        assert 0.5 < made["rank_correlation"] <= 1 and 0 < made["top_20_in_common"] <= 1
    halves = rows["rank() in nf4, beside bf16"]
    assert halves["against"] == "bf16" and halves["weights_mb"] > 0 < halves["weights_mb_bf16"]
    rows = measured("serve", wide, tmp_path)
    shared = [made for what, made in rows.items() if "computed once" in what]
    assert len(shared) == 2 and all(made["largest_difference"] < 1e-4 for made in shared)
    assert len([what for what in rows if what.startswith("20 codes decoded")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("train", 2), ("score", 2)])
def test_every_section_runs_at_a_small_size(name, count, wide, tmp_path):
    rows = measured(name, wide, tmp_path)
    assert len(rows) >= count and all(made["ratio"] > 0 for made in rows.values())


def test_a_step_of_training_learns():
    ontology = Ontology.load()
    people = patients(30, ontology.billable("ICD9"))
    labels = sorted({code for person in people for visit in person.visits for code in visit.codes})
    model = tiny_model(labels, tiny_vocabulary(labels))
    steps = train_step.Steps(model, ontology, train_step.HCL, people)
    before = model.head.bias.detach().clone()
    assert steps.step() > 0 and not torch.equal(before, model.head.bias)


def test_lists_agree_as_far_as_their_places_do():
    one, other = np.array([[0, 1, 2, 3], [3, 2, 1, 0]]), np.array([[1, 0, 2, 3], [3, 2, 1, 0]])
    assert precisions.rank_correlation(one, one) == 1 and precisions.rank_correlation(one, one[:, ::-1]) == -1
    assert precisions.rank_correlation(one, other) == pytest.approx((0.8 + 1) / 2)
    assert precisions.in_common(one, other, first=1) == 0.5 and precisions.in_common(one, other, first=2) == 1


def test_without_a_gpu_or_time_every_row_says_so(monkeypatch):
    for available, why in ((False, gpu_7b.NO_GPU), (True, gpu_7b.NO_TIME)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        rows = list(gpu_7b.measure(Setting(quick=True), minutes=0.5))
        assert len(rows) == 9 and all(made["what"].endswith(why) and made["value"] is None for made in rows)
    monkeypatch.undo()
    slow = lambda: time.sleep(0.02)  # noqa: E731
    assert len(gpu_7b.timed(slow, 10, time.monotonic())) == 1 and len(gpu_7b.timed(slow, 3)) == 3


@pytest.mark.parametrize(("four_bit", "adapters"), [(False, False), (True, False), (True, True)])
def test_shapes_of_random_weights_score_and_train_on_a_cpu(four_bit, adapters):
    """The code that a GPU runs at 7B, at a size that a CPU runs."""
    model = gpu_7b.random_backbone(gpu_7b.SMALL, "cpu", four_bit, torch.float32)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert sum("Linear4bit" in type(module).__name__ for module in model.modules()) == (14 if four_bit else 0)
    assert sorted(gpu_7b.scored(model, 2)[0].tolist()) == list(range(gpu_7b.LABELS))
    if adapters:
        gpu_7b.put_adapters(model)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if adapters:
        rows = [p.shape for name, p in trained.items() if "lora_" not in name]
        assert rows == [(gpu_7b.CODES, gpu_7b.SMALL.hidden_size)] * 2
    before = {name: p.detach().clone() for name, p in trained.items()}
    gpu_7b.training_step(model, 2, torch.optim.SGD(trained.values(), lr=1.0))
    for name, parameter in trained.items():
        assert torch.isfinite(parameter).all()
        if "lora_A" not in name and "norm" not in name:  # lora_A starts to move in the second step
            assert not torch.equal(parameter, before[name]), name


def test_llama_7b_has_its_shape():
    with torch.device("meta"):
        model = gpu_7b.LlamaForCausalLM(gpu_7b.LLAMA_7B)
    published, added = 6_738_415_616, 2 * 4096 * gpu_7b.CODES  # of LLaMA-2-7B; rows for codes in both tables
    assert sum(parameter.numel() for parameter in model.parameters()) == published + added
    body = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert gpu_7b.operations_a_token(gpu_7b.LLAMA_7B, False) == pytest.approx(6 * body, rel=0.01)
    assert gpu_7b.operations_a_token(gpu_7b.LLAMA_7B, True) == pytest.approx(4 * body, rel=0.02)
