"""The baseline table: same patients, same draws, rows that are kept, and rows that say why they were not run."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from training.ablate.results import claimed
from training.baselines import tuning
from training.baselines.neural import NeuralSettings
from training.evaluate import compare_baselines as compare
from training.evaluate.baseline_table import SAME, KeptTable

GRID = (NeuralSettings(width=8, passes=1), NeuralSettings(width=16, passes=1))


@pytest.fixture
def small_grid(monkeypatch) -> None:
    real = tuning.families
    monkeypatch.setattr(
        compare, "families", lambda labels, told: [f for f in real(labels, told, GRID) if "regression" not in f.name]
    )


def test_the_table_is_filled_kept_and_paired(
    tiny_checkpoint, invented_cohort, tmp_path, small_grid, monkeypatch
) -> None:
    out = tmp_path / "baselines.json"

    def run(**values):
        return compare.run(tiny_checkpoint, str(invented_cohort), "table", out, seeds=(1, 2), draws=30, **values)

    first = run(only=("code frequency", "RETAIN", "network told the record"))
    rows = {row["name"]: row for row in first["rows"]}
    assert set(rows) == {"code frequency", "RETAIN", "network told the record"} and json.loads(out.read_text()) == first
    assert rows["code frequency"]["seeds"] == 1 and rows["code frequency"]["runs"] == 1
    retain = rows["RETAIN"]
    chosen = 1 + (retain["settings"] != retain["settings_new_only"])
    assert retain["seeds"] == 2 and retain["runs"] == 2 + chosen  # two settings, then one more seed of each chosen one
    for goal, settings in (("recall@20", "settings"), ("new_only_recall@20", "settings_new_only")):
        best = max(retain["tuning"], key=lambda tried: tried[f"validation_{goal}"])
        assert best["settings"] == retain[settings]
    assert retain["told"] == "codes" and rows["code frequency"]["told"] == "nothing of the patient"
    assert rows["network told the record"]["told"].startswith("codes, sex, age, ethnicity")
    assert first["told"]["mera"].startswith("codes, sex, age, ethnicity")
    assert len(retain["tuning"]) == 2 and retain["settings"]["width"] in (8, 16)
    for row in rows.values():
        for part in ("validation", "test"):
            for name in compare.SHOWN:
                theirs, minus = row[part]["metrics"][name]["value"], row[part]["mera_minus_this"][name]
                assert minus["value"] == pytest.approx(first["mera"][part][name]["value"] - theirs)
                assert minus["low"] <= minus["value"] <= minus["high"]
                assert np.mean(row[part]["by_seed"][name]) == pytest.approx(theirs)
            names = {f"new_only_{name}" for name in ("recall@5", "recall@10", "recall@20", "auprc_micro", "ece")}
            assert names <= set(row[part]["metrics"]) and names <= set(first["mera"][part])
    assert first["patients"]["test"] > 5 and "recall@20" in first["budget"]

    fitted = []
    real = compare._row
    monkeypatch.setattr(compare, "_row", lambda family, *rest: (fitted.append(family.name), real(family, *rest))[1])
    second = run()
    assert not {"RETAIN", "code frequency", "network told the record"} & set(fitted) and "GRU classifier" in fitted
    rows = {row["name"]: row for row in second["rows"]}
    assert rows["RETAIN"] == {row["name"]: row for row in first["rows"]}["RETAIN"]
    fitted.clear()
    run()
    assert fitted == []


def test_a_table_of_another_label_space_or_cohort_is_not_mixed(
    tiny_checkpoint, invented_cohort, tmp_path, small_grid
) -> None:
    out = tmp_path / "baselines.json"
    arguments = (tiny_checkpoint, str(invented_cohort), "table", out)
    compare.run(*arguments, draws=20, only=("code frequency",))
    with pytest.raises(InputError, match="holds the table of another number of draws"):
        compare.run(*arguments, draws=30, only=("code frequency",))
    for key, words in (("labels", "label space"), ("cohort", "cohort"), ("cut", "way of cutting")):
        kept = out.read_text()
        out.write_text(json.dumps(json.loads(kept) | {key: "other"}))
        with pytest.raises(InputError, match=f"holds the table of another {words}"):
            compare.run(*arguments, draws=20)
        out.write_text(kept)
    with pytest.raises(InputError, match="no baseline random forest; there are code frequency"):
        compare.run(*arguments, only=("random forest",))


def test_the_same_records_from_another_place_and_another_checkpoint_keep_the_rows(
    tiny_checkpoint, invented_cohort, tmp_path, small_grid, monkeypatch
) -> None:
    """Publishing a checkpoint again measures MERA again, and no baseline."""
    out, moved = tmp_path / "baselines.json", tmp_path / "moved.csv"
    shutil.copyfile(invented_cohort, moved)
    names = ("code frequency", "copy the past, then frequency")
    first = compare.run(tiny_checkpoint, str(invented_cohort), "table", out, draws=20, only=names)
    ranked = Engine.ranked
    monkeypatch.setattr(compare, "_row", lambda family, *rest: pytest.fail(f"{family.name} was fitted again"))
    same = compare.run(tiny_checkpoint, str(moved), "table", out, draws=20, only=names)
    assert same["rows"] == first["rows"] and same["data"]["source"] == "moved.csv"
    monkeypatch.setattr(Engine, "ranked", lambda self, *read: -ranked(self, *read))  # other weights
    again = compare.run(tiny_checkpoint, str(moved), "table", out, draws=20, only=names)
    for before, after in zip(first["rows"], again["rows"], strict=True):
        for part in ("validation", "test"):
            assert after[part]["metrics"] == before[part]["metrics"]
            theirs, ours = after[part]["metrics"]["recall@20"]["value"], again["mera"][part]["recall@20"]["value"]
            assert after[part]["mera_minus_this"]["recall@20"]["value"] == pytest.approx(ours - theirs)
    assert again["mera"] != first["mera"]
    # rows whose draws are gone can't be paired, and are fitted again
    shutil.rmtree(out.with_suffix(""))
    monkeypatch.setattr(Engine, "ranked", ranked)
    with pytest.raises(pytest.fail.Exception, match="code frequency was fitted again"):
        compare.run(tiny_checkpoint, str(moved), "table", out, draws=20, only=names)


def test_rows_that_were_told_something_else_are_fitted_again_beside_another_checkpoint(tmp_path) -> None:
    about = {key: key for key in SAME} | {"mera": {}, "told": {"told the record": "codes, sex", "codes": "codes"}}
    table = KeptTable(tmp_path / "table.json", about, {}, ())
    table.keep({"name": "told the record", "told": "codes, sex"})
    table.keep({"name": "codes", "told": "codes"})
    assert table.done() == {"told the record", "codes"}
    about["told"] = {"told the record": "codes, sex; of each past visit discharge", "codes": "codes"}
    assert KeptTable(tmp_path / "table.json", about, {}, ()).done() == {"codes"}


def test_two_processes_on_one_table_lose_no_row(tmp_path) -> None:
    about = {key: key for key in (*SAME, "checkpoint")} | {"mera": {}}
    one, other = (KeptTable(tmp_path / "table.json", about, {}, ()) for _ in range(2))
    one.keep({"name": "first"})
    other.keep({"name": "second"})  # read the table before the first row was there
    one.keep({"name": "third", "not_run": "why"})
    assert [row["name"] for row in other.read()["rows"]] == ["first", "second", "third"]
    assert one.done() == {"first", "second"}


def test_each_process_waits_for_the_table(tmp_path) -> None:
    about = {key: key for key in (*SAME, "checkpoint")} | {"mera": {}}
    table = KeptTable(tmp_path / "table.json", about, {}, ())
    writer = threading.Thread(target=table.keep, args=({"name": "late"},), daemon=True)
    with claimed(tmp_path / "table.json.lock"):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and not (tmp_path / "table.json").exists()
    writer.join(10)
    assert table.done() == {"late"}
