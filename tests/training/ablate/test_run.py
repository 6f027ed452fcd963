"""The ablation table: what its rows change, that runs are kept and paired, and what an interval says of a claim."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import estimate
from training.ablate import run as ablate
from training.ablate.results import claimed, load_figures, save_figures
from training.ablate.table import SHOWN, Table
from training.open_questions import BRANCH_ROWS, order
from training.rank.setup import prepare

ROOT = Path(__file__).resolve().parents[3]
CONFIG, EVIDENCE = ROOT / "training" / "configs" / "ablate.yaml", ROOT / "docs" / "evidence"
TINY = {
    "seeds": [1, 2],
    "memorize": {
        "word_pieces": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2, "epochs": 0.01,
        "batch_size": 64, "sampled_negatives": 64, "save_every": 0,
    },
    "rank": {"epochs": 1, "batch_size": 16, "learning_rate": 0.005, "rehearsal": 0, "save_every": 0},
    "rows": [
        {"name": "MERA", "group": "reference", "keep": True},
        {"name": "no memorization", "group": "paper", "claim": "it falls", "start": "untrained"},
        {"name": "decode with CE", "group": "paper", "claim": "it falls", "train": "sequence", "output": "decode"},
        {"name": "rank with CE", "group": "paper", "claim": "it falls", "train": "sequence"},
    ],
}  # fmt: skip


@pytest.fixture
def tiny_table(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


def test_the_committed_table_is_what_its_kept_runs_say() -> None:
    """Every row and seed of the published table has been run with the very settings that stand in its YAML."""
    found = json.loads((EVIDENCE / "ablations.json").read_text("utf-8"))
    data = found["data"]
    runs = ablate.Runs(Table.load(CONFIG), data["source"], data["format"], Path("nowhere"))
    assert ablate.summary(runs, EVIDENCE / "ablations", ablate.DRAWS) == found
    assert all(len(row["seeds"]) >= 3 for row in found["rows"])
    rows = {row.name: row for row in runs.table.rows}
    assert not runs.table.rows[0].changes() and all(row.claim for row in runs.table.rows[1:])
    assert len({runs.table.fingerprint(row, 1, row.output) for row in rows.values()}) == len(rows)
    assert runs.table.same_model(rows["decode with CE"], rows["rank with CE"])
    assert not runs.table.same_model(rows["decode with CE"], rows["MERA"])
    assert runs.table.rank_config(rows["no level 0"], 1).levels == (1, 2, 3, 4)
    assert all(rows[name].keep for name in BRANCH_ROWS)  # question 1 reads their checkpoints


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"name": "x", "group": "ours", "colour": "red"}]}, "does not exist: colour"),
        ({"rows": [{"name": "x", "group": "ours", "rank": {"leves": [0]}}]}, '"x": leves is not a known'),
        ({"rows": [{"name": "x", "group": "ours"}] * 2}, "names a row twice"),
        ({"rows": [{"name": "x", "group": "ours", "output": "decode"}]}, "was not trained to"),
        ({"rows": [{"name": "x", "group": "ours", "start": "cold"}]}, "memorized or untrained"),
        ({"rows": [{"name": "x", "group": "ours", "figure": "auroc"}]}, "is about auroc"),
        ({"seeds": []}, "none of them empty"),
        ({"more": 1}, "must hold memorize, rank, rows, seeds"),
    ],
)
def test_a_table_that_can_not_be_run_is_refused_before_the_night(tmp_path, change, message) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(TINY | change), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        Table.load(path)
    with pytest.raises(InputError, match="can't be read"):
        Table.load(tmp_path / "none.yaml")


def test_a_verdict_needs_an_interval_that_leaves_out_nothing() -> None:
    clear_fall, clear_rise = (estimate(value, np.full(50, value)) for value in (-0.05, 0.05))
    open_ = estimate(-0.05, np.linspace(-0.2, 0.1, 50))
    assert [ablate.verdict(one, False) for one in (clear_fall, clear_rise, open_)] == [
        "holds", "does not hold", "not settled",
    ]  # fmt: skip
    assert [ablate.verdict(one, True) for one in (clear_fall, clear_rise)] == ["does not hold", "holds"]


def test_kept_figures_come_back_to_the_last_digit(tmp_path) -> None:
    figures = {"test/recall@20": estimate(1 / 3, np.random.default_rng(0).random(20))}
    save_figures(tmp_path / "one.npz", figures, seconds=2.5)
    loaded, numbers = load_figures(tmp_path / "one.npz")
    assert loaded == figures and np.array_equal(loaded["test/recall@20"].draws, figures["test/recall@20"].draws)
    assert numbers == {"seconds": 2.5} and load_figures(tmp_path / "two.npz") is None


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path) -> None:
    lock = tmp_path / "run.lock"
    with claimed(lock) as first, claimed(lock) as second:  # a second handle, as another process would open it
        assert first and not second
    with claimed(lock) as again:
        assert again


def test_a_table_is_filled_run_by_run_and_goes_on(tiny_table, invented_cohort, tmp_path, monkeypatch) -> None:
    out, runs = tmp_path / "table.json", tmp_path / "runs"

    def run(**values):
        return ablate.run(tiny_table, str(invented_cohort), "table", runs, out, draws=30, **values)

    started = []
    real = ablate.one_run
    monkeypatch.setattr(ablate, "one_run", lambda models, row, seed, *rest: (started.append((row.name, seed)), real(models, row, seed, *rest)))  # fmt: skip # noqa: E501
    first = run(seeds=(1,))
    # one model is trained for the two rows that only read it differently
    assert started == [("MERA", 1), ("no memorization", 1), ("decode with CE", 1)]
    rows = {row["name"]: row for row in first["rows"]}
    assert all(row["seeds"] == [1] for row in rows.values()) and json.loads(out.read_text()) == first
    assert set(rows["MERA"]["test"]["metrics"]) == set(SHOWN) and "minus_reference" not in rows["MERA"]["test"]
    for name in ("no memorization", "rank with CE", "decode with CE"):
        for part in ("validation", "test"):
            difference = rows[name][part]["minus_reference"]["recall@20"]
            expected = (
                rows[name][part]["metrics"]["recall@20"]["value"] - rows["MERA"][part]["metrics"]["recall@20"]["value"]
            )
            assert difference["value"] == pytest.approx(expected)
            assert difference["low"] <= difference["value"] <= difference["high"]
        assert rows[name]["verdict"] in ("holds", "does not hold", "not settled")
    # a model that was never asked a question knows no definition; what one reads otherwise knows the same
    assert rows["no memorization"]["stage1_memory"]["code_to_definition"] == 0
    assert rows["rank with CE"]["stage1_memory"] == rows["MERA"]["stage1_memory"]
    assert rows["decode with CE"]["test"] != rows["rank with CE"]["test"]
    started.clear()
    assert run(seeds=(1,)) == first and started == []  # nothing is done twice
    second = run(only=("MERA",), seeds=(2,))
    assert started == [("MERA", 2)]
    rows = {row["name"]: row for row in second["rows"]}
    assert rows["MERA"]["seeds"] == [1, 2] and rows["no memorization"]["seeds"] == [1]
    assert len(rows["MERA"]["test"]["by_seed"]["recall@20"]) == 2
    table = Table.load(tiny_table)
    data = str(invented_cohort)
    models = ablate.Runs(table, data, "table", runs)
    checkpoint = models.checkpoint("MERA", 2)
    assert (checkpoint / "mera.json").is_file()
    with pytest.raises(InputError, match='keeps no checkpoint of a row "rank with CE"'):
        models.checkpoint("rank with CE", 1)
    weights = (checkpoint / "model.safetensors").read_bytes()
    shutil.rmtree(runs)  # another machine: figures are committed, checkpoints are not
    started.clear()
    assert run(only=("MERA",), seeds=(1, 2)) == second and started == []
    again = models.checkpoint("MERA", 2)
    assert again == checkpoint and (again / "model.safetensors").read_bytes() == weights
    with pytest.raises(InputError, match="no row red"):
        run(only=("red",))
    with pytest.raises(InputError, match="no seed 9"):
        run(seeds=(9,))


def test_the_question_of_order_takes_what_the_table_has_trained_and_trains_the_rest_once(
    tiny_table, invented_cohort, tmp_path, monkeypatch
) -> None:
    data, runs = str(invented_cohort), tmp_path / "runs"
    models = ablate.Runs(Table.load(tiny_table), data, "table", runs)
    ablate.run(tiny_table, data, "table", runs, tmp_path / "table.json", only=("MERA",), seeds=(1,), draws=20)
    trained = []
    monkeypatch.setattr(order, "prepare", lambda config, folder: (trained.append(folder.name), prepare(config, folder))[1])  # fmt: skip # noqa: E501
    first = order.run(models, (1,), draws=20)
    assert len(first["rows"]) == 6 and len(trained) == 5  # shuffled, with the head's terms, is the table's MERA
    assert not any(name.startswith("order-0-with-") for name in trained)
    for row in first["rows"]:
        assert ("minus_shuffled" in row) == (row["order"] != "shuffled")
        assert 0 <= row["metrics"]["principal_recall@10"]["value"] <= 1
    trained.clear()
    assert order.run(models, (1,), draws=20) == first and not trained
