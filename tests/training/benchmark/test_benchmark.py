"""Benchmarks: pairs are taken in turn, a row says what it is, nothing of the machine's names gets out, and it measures."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from mera_core.common.errors import InputError
from training import __main__ as cli
from training import benchmark
from training.benchmark import importing, rows
from training.benchmark.importing import Size
from training.benchmark.machine import machine
from training.benchmark.processes import child
from training.benchmark.rows import Setting, checked, paired, percentile, row
from training.benchmark.screen import table


@pytest.fixture
def section(monkeypatch):
    """A section of one figure."""
    made = SimpleNamespace(TITLE="Sleeping", measure=lambda setting: iter([row("nap", [2.0], "s", "rest", [1.0])]))
    monkeypatch.setitem(benchmark.SECTIONS, "sleep", "nowhere")
    monkeypatch.setattr(benchmark, "import_module", lambda name: made)
    monkeypatch.setattr(
        benchmark, "machine", lambda: {"cores": 2, "memory_gb": 8.0, "gpu": None, "versions": {"python": "3"}}
    )
    return made


def command(monkeypatch, *words: str) -> int:
    """Run `python -m training benchmark` in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["training", "benchmark", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    return ended.value.code or 0


def test_pairs_are_taken_in_turn_and_the_order_alternates():
    calls = []

    def one(name: str, values: list[float]):
        return lambda: calls.append(name) or values.pop(0)

    ours, theirs = paired(one("a", [9.0, 1.0, 2.0, 3.0]), one("b", [9.0, 4.0, 5.0, 6.0]), runs=3, warm=1)
    assert "".join(calls) == "abbaabba"
    assert (ours, theirs) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_a_row_has_the_median_and_the_median_of_the_pairs_ratios():
    made = row("convert", [10.0, 30.0, 20.0], "s", "a scan", [5.0, 10.0, 2.0], rows=7)
    assert (made["value"], made["lowest"], made["highest"], made["runs"]) == (20.0, 10.0, 30.0, 3)
    assert (made["against_value"], made["ratio"], made["rows"]) == (5.0, 3.0, 7)  # of 2, 3 and 10; not 20 / 5
    assert "ratio" not in row("alone", [1.0], "GB")
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    with pytest.raises(InputError, match="2 runs beside 1"):
        row("convert", [1.0, 2.0], "s", "a scan", [1.0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": ...}, "lacks unit"),
        ({"value": float("nan")}, "no plain, finite value"),
        ({"sizes": [1, 2]}, "no plain, finite value"),
        ({"source": "/" + "home/someone/data"}, "names a path or an address"),
        ({"source": "at http://host/x"}, "names a path or an address"),
        ({"source": "C:\\data"}, "names a path or an address"),
    ],
)
def test_a_row_that_may_not_be_published_is_refused(change, said):
    made = {key: value for key, value in (row("convert", [1.0], "s") | change).items() if value is not ...}
    with pytest.raises(InputError, match=said):
        checked(made, "import")
    assert checked(row("km/h and and/or are no paths", [1.0], "1/s"), "import")


def test_a_section_is_written_whole_with_the_machine_and_without_names(section, tmp_path):
    told = []
    [result] = benchmark.run(["sleep"], Setting(), tmp_path, told.append)
    assert json.loads((tmp_path / "benchmark-sleep.json").read_text()) == result
    assert told == result["rows"] and result["rows"][0]["ratio"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark-sleep.json"]


def test_each_row_is_in_the_file_when_the_next_is_measured(section, tmp_path):
    file, seen = tmp_path / "benchmark-sleep.json", []

    def measure(setting):
        for what in ("nap", "night"):
            seen.append(json.loads(file.read_text()) if file.exists() else None)
            yield row(what, [2.0], "s")
        raise InputError("woken.")

    section.measure = measure
    with pytest.raises(InputError, match="woken"):
        list(benchmark.run(["sleep"], Setting(), tmp_path))
    left = json.loads(file.read_text())
    assert seen[0] is None and [made["what"] for made in seen[1]["rows"]] == ["nap"]
    assert [made["what"] for made in left["rows"]] == ["nap", "night"] and left["complete"] is False
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_row_that_may_not_be_published_is_in_no_file(section, tmp_path):
    section.measure = lambda setting: iter([{"what": "half"}])
    with pytest.raises(InputError, match="lacks value"):
        list(benchmark.run(["sleep"], Setting(), tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [",", "", " , "])
def test_a_list_of_sections_that_names_none_is_refused(section, monkeypatch, capsys, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "SECTIONS", {"sleep": "sleep"})
    assert command(monkeypatch, "--sections", given, "--out", str(tmp_path)) == 2
    assert "--sections names none; there are sleep." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_sections_and_missing_folders_are_told(tmp_path):
    with pytest.raises(InputError, match="no benchmark section 'naps'; there are import, app"):
        list(benchmark.run(["naps"], Setting()))
    with pytest.raises(InputError, match="There is no folder"):
        list(benchmark.run(["import"], Setting(), tmp_path / "none"))
    with pytest.raises(InputError, match="at least one run"):
        Setting(runs=0)


def test_the_machine_is_told_in_general_terms():
    found = machine()
    assert found["cores"] >= 1 and found["versions"]["pyarrow"]
    assert not {"node", "host", "hostname"} & set(found)
    assert not rows._PATH.search(json.dumps(found))


def test_a_childs_own_memory_is_measured_and_its_failure_told():
    small = child([sys.executable, "-c", "import time; time.sleep(0.3)"])
    large = child([sys.executable, "-c", "import time; held = b'x' * 300_000_000; time.sleep(0.3)"])
    assert 0.29 < large.peak_gb - small.peak_gb < 0.35
    assert small.seconds > 0.3
    with pytest.raises(InputError, match="status 3: no such luck"):
        child([sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"])


def test_converting_is_measured_beside_a_scan_of_the_same_files(tmp_path):
    size = Size(50, 80, 800)
    source = size.made("mimic4", tmp_path / "source")
    scan = (importing._GZIPPED_CSV, source, "a scan")
    made = checked(importing._convert("tables", source, "visits.parquet", scan, 1, size), "import")
    assert made["value"] > made["against_value"] > 0 and made["ratio"] > 1
    assert 0.02 < made["against_peak_gb"] < made["peak_gb"] < 3
    assert (made["patients"], made["visits"], made["diagnoses"]) == (50, 80, 800)
    assert "within_limits" not in made  # said of the full size alone


def test_the_command_prints_a_table_and_writes_nothing_of_small_sizes(section, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "--sections", "sleep", "--quick") == 0
    said = capsys.readouterr().out
    assert "nap" in said and "2.00" in said and "Nothing is written" in said
    assert list(tmp_path.iterdir()) == []


def test_what_cant_be_measured_here_is_left_out_of_all_and_refused_by_name(section, monkeypatch, capsys):
    def refuse(setting):
        raise InputError("there is no GPU.")

    other = SimpleNamespace(TITLE="On a GPU", measure=refuse)
    monkeypatch.setattr(benchmark, "SECTIONS", {"gpu": "gpu", "sleep": "sleep"})
    monkeypatch.setattr(benchmark, "import_module", {"gpu": other, "sleep": section}.get)
    for words, status in ((["--quick"], 0), (["--quick", "--sections", "gpu,sleep"], 2)):
        assert command(monkeypatch, *words) == status
        said = capsys.readouterr()
        assert "there is no GPU." in said.err
        assert ("nap" in said.out) == (status == 0)


def test_further_facts_of_a_row_stand_below_it(section):
    [result] = benchmark.run(["sleep"], Setting())
    result["rows"] = [row("load", [1500.0], "ms", p95=1600.0, patients=364_000, within_limits=True)]
    said = io.StringIO()
    table(result, Console(file=said, width=120))
    said = said.getvalue()
    assert "p95: 1600, patients: 364,000, within_limits: yes" in said and "2 cores, 8 GB, no GPU" in said


def test_a_table_of_80_columns_keeps_what_was_measured_and_every_figure(section):
    [result] = benchmark.run(["sleep"], Setting())
    against = {"against": "a loop over it", "against_value": 189.6, "ratio": 5.39}
    result["rows"] = [row("one worker on one core", [964.8, 1022.0, 1066.0], "patients/s") | against]
    said = io.StringIO()
    table(result, Console(file=said, width=80))
    lines = said.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in said.getvalue()
    assert any(line.startswith("  one worker on one core") and "1022" in line and "5.39" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), [("import", 6), ("app", 7)])
def test_every_section_runs_at_a_small_size(name, rows, tmp_path):
    [result] = benchmark.run([name], Setting(quick=True), tmp_path)
    assert result["quick"] and len(result["rows"]) == rows
    assert all(made["ratio"] > 0 for made in result["rows"])
    assert json.loads((tmp_path / f"benchmark-{name}.json").read_text()) == result
