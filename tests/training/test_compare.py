"""The baseline table: same patients, same draws, rows that are kept, and rows that say why they were not run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mera_core.errors import InputError
from training.baselines import compare, tuning
from training.baselines.neural import NeuralSettings

GRID = (NeuralSettings(width=8, passes=1), NeuralSettings(width=16, passes=1))


@pytest.fixture
def small_grid(monkeypatch) -> None:
    real = tuning.families
    monkeypatch.setattr(
        compare, "families", lambda labels: [f for f in real(labels, GRID) if "regression" not in f.name]
    )


def test_the_table_is_filled_kept_and_paired(
    tiny_checkpoint, invented_cohort, tmp_path, small_grid, monkeypatch
) -> None:
    out = tmp_path / "baselines.json"

    def run(**values):
        return compare.run(tiny_checkpoint, str(invented_cohort), "table", out, seeds=(1, 2), draws=30, **values)

    first = run(only=("code frequency", "RETAIN"))
    rows = {row["name"]: row for row in first["rows"]}
    assert set(rows) == {"code frequency", "RETAIN"} and json.loads(out.read_text()) == first
    assert rows["code frequency"]["seeds"] == 1 and rows["code frequency"]["runs"] == 1
    assert rows["RETAIN"]["seeds"] == 2 and rows["RETAIN"]["runs"] == 3  # two settings, then one more seed
    assert len(rows["RETAIN"]["tuning"]) == 2 and rows["RETAIN"]["settings"]["width"] in (8, 16)
    for row in rows.values():
        for part in ("validation", "test"):
            for name in compare.SHOWN:
                theirs, minus = row[part]["metrics"][name]["value"], row[part]["mera_minus_this"][name]
                assert minus["value"] == pytest.approx(first["mera"][part][name]["value"] - theirs)
                assert minus["low"] <= minus["value"] <= minus["high"]
                assert np.mean(row[part]["by_seed"][name]) == pytest.approx(theirs)
    assert first["patients"]["test"] > 5 and "recall@20" in first["budget"]

    fitted = []
    real = compare._row
    monkeypatch.setattr(compare, "_row", lambda family, *rest: (fitted.append(family.name), real(family, *rest))[1])
    second = run()
    assert "RETAIN" not in fitted and "code frequency" not in fitted and "GRU classifier" in fitted
    rows = {row["name"]: row for row in second["rows"]}
    assert rows["RETAIN"] == {row["name"]: row for row in first["rows"]}["RETAIN"]
    for name in ("PyHealth RETAIN", "PyHealth Transformer"):
        assert rows[name]["not_run"].startswith("no environment with PyHealth was named (make one with Python 3.11")
    fitted.clear()
    run()
    assert fitted == []


def test_a_table_of_another_checkpoint_or_cohort_is_not_mixed(
    tiny_checkpoint, invented_cohort, tmp_path, small_grid
) -> None:
    out = tmp_path / "baselines.json"
    arguments = (tiny_checkpoint, str(invented_cohort), "table", out)
    compare.run(*arguments, draws=20, only=("code frequency",))
    with pytest.raises(InputError, match="holds the table of another draws"):
        compare.run(*arguments, draws=30, only=("code frequency",))
    out.write_text(json.dumps(json.loads(out.read_text()) | {"checkpoint": "other"}))
    with pytest.raises(InputError, match="holds the table of another checkpoint"):
        compare.run(*arguments, draws=20)
    with pytest.raises(InputError, match="no baseline random forest; there are code frequency"):
        compare.run(*arguments, only=("random forest",))
