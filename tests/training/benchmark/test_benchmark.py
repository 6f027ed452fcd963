"""Benchmarks: pairs are taken in turn, a row says what it is, it is in the file at once, and each section measures."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from mera_core.checkpoint.folder import save_checkpoint
from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from tests.tiny import tiny_manifest, tiny_model, tiny_vocabulary
from training import __main__ as cli
from training import benchmark
from training.benchmark import gpu_7b, importing, precisions, sample_forms, train_step
from training.benchmark.importing import Size
from training.benchmark.invented import patients
from training.benchmark.machine import child
from training.benchmark.rows import Setting, paired, row, show

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
def test_a_terminal_of_80_columns_shows_what_each_figure_is_of(file):
    result, said = json.loads(file.read_text("utf-8")), io.StringIO()
    show(result, Console(file=said, width=80))
    said = said.getvalue()
    for made in result["rows"]:
        for word in made["what"].split():
            assert word in said
        if made["value"] is not None:
            assert f"{made['value']:g}" in said and f"{made.get('ratio', 1):.2f}" in said
    for key in {key for made in result["rows"] for key in made} & {"p95", "variants", "targets"}:
        assert f"{key}:" in said.replace("\n", "")


def test_the_command_prints_a_table_and_leaves_out_what_cant_be_measured_here(section, monkeypatch, capsys, tmp_path):
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
    with pytest.raises(InputError, match="at least one run"):
        Setting(runs=0)


def test_a_childs_own_memory_is_measured_and_its_failure_told():
    small = child([sys.executable, "-c", "import time; time.sleep(0.3)"])
    large = child([sys.executable, "-c", "held = b'x' * 300_000_000; print('out')"])
    assert 0.29 < large.peak_gb - small.peak_gb < 0.35
    assert small.seconds > 0.3 and large.stdout == "out\n" and large.stderr == ""
    with pytest.raises(InputError, match="status 3: no such luck"):
        child([sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"])


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
    [result] = benchmark.run([name], Setting(quick=True, runs=1, checkpoint=checkpoint), tmp_path)
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
    assert len([what for what in rows if what.startswith("20 codes decoded")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("import", 6), ("app", 7), ("train", 2), ("forms", 3), ("score", 2)])
def test_every_section_runs_at_a_small_size(name, count, wide, tmp_path):
    rows = measured(name, wide, tmp_path)
    assert len(rows) >= count and all(made["ratio"] > 0 for made in rows.values())


def test_both_forms_of_samples_ask_the_same_and_a_step_learns():
    """What the rows on training pair: the same targets, and steps that move the weights."""
    ontology = Ontology.load()
    people = patients(30, ontology.billable("ICD9"))
    labels = sorted({code for person in people for visit in person.visits for code in visit.codes})
    model = tiny_model(labels, tiny_vocabulary(labels))
    one_pass, prefixes = (
        train_step.Steps(model, ontology, config, people) for config in (sample_forms.ONE_PASS, sample_forms.PREFIXES)
    )
    assert one_pass.targets == prefixes.targets == sum(len(person.visits) - 1 for person in people)
    assert sum(one_pass.tokens) < sum(prefixes.tokens)
    before = model.head.bias.detach().clone()
    assert one_pass.one_pass() > 0 and not torch.equal(before, model.head.bias)


def test_converting_is_measured_beside_a_scan_of_the_same_files(tmp_path):
    size = Size(50, 80, 800)
    source = size.made("mimic4", tmp_path / "source")
    made = importing.measured("tables", source, "visits.parquet", (importing.CSV, source, "a scan"), 1, size)
    assert made["value"] > made["against_value"] > 0 and made["ratio"] > 1
    assert 0.02 < made["against_peak_gb"] < made["peak_gb"] < 3
    assert (made["patients"], made["visits"], made["diagnoses"]) == (50, 80, 800)
    assert "within_limits" not in made  # said of the full size alone


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
