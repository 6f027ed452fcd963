"""The published folder: measured as it is stored, a card whose every figure is the manifest's, small enough to carry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mera_core.checkpoint.folder import Manifest, read_manifest, sha256
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Ontology
from tests.tiny import tiny_manifest
from training.evaluate import run as evaluate
from training.release import publish

CODES = 40


@pytest.fixture(scope="module")
def published(tiny_checkpoint, invented_cohort, tmp_path_factory) -> Path:
    """The tiny checkpoint, published; recall is measured on the first 40 codes of the book instead of 14,567."""
    out = tmp_path_factory.mktemp("published") / "mera-tiny"
    with pytest.MonkeyPatch.context() as patch:
        real = Ontology.billable
        patch.setattr(Ontology, "billable", lambda self, system: real(self, system)[:CODES])
        run = evaluate.run
        patch.setattr(publish.evaluate, "run", lambda *args, **kwargs: run(*args, **({"draws": 20} | kwargs)))
        publish.run(tiny_checkpoint, out, str(invented_cohort), "table")
    return out


def test_the_published_folder_loads_and_ranks_as_the_run_did(published, tiny_checkpoint) -> None:
    history = Patient([Visit(["428.0", "427.31"], age=70)])
    one, other = Engine.load(published).rank(history), Engine.load(tiny_checkpoint).rank(history)
    assert one.codes == other.codes and (one.scores == other.scores).all()
    assert one.checkpoint.startswith("mera-tiny ")


def test_weights_are_carried_over_byte_for_byte(published, tiny_checkpoint) -> None:
    before, after = read_manifest(tiny_checkpoint), read_manifest(published)
    assert {name: after.files[name] for name in before.files} == before.files
    assert set(after.files) - set(before.files) == {"README.md"}
    assert after.files["README.md"] == sha256(published / "README.md")


def test_the_manifest_holds_what_evaluate_finds(published, tiny_checkpoint, invented_cohort) -> None:
    metrics = read_manifest(published).metrics
    measured = evaluate.run(tiny_checkpoint, str(invented_cohort), "table", draws=20)
    assert metrics["test"]["metrics"] == measured["metrics"]
    assert metrics["test"]["patients"] != 0 and metrics["recall"]["codes"] == CODES
    assert metrics["validation"]["data"]["patients"].startswith("validation part")


def test_every_figure_of_the_card_is_in_the_manifest(published) -> None:
    manifest = read_manifest(published)
    card = (published / "README.md").read_text(encoding="utf-8")
    assert card == publish.card(manifest)
    test = manifest.metrics["test"]["metrics"]
    for name in ("recall@10", "recall@20", "weighted_f1_cut"):
        value, low, high = (100 * test[name][key] for key in ("value", "low", "high"))
        assert f"| {name} | {value:.1f} % ({low:.1f} to {high:.1f}) |" in card
    words = manifest.metrics["recall"]["code_to_definition"]["words"]
    assert f"| code → definition | {100 * words:.2f} % |" in card
    assert f"({CODES} codes, greedy" in card and manifest.data["commit"] in card
    assert "Research use, not for clinical decisions." in card
    f1 = manifest.metrics["test"]["f1_order"]["metrics"]["weighted_f1_cut"]
    for text in (card, publish.results(manifest)):
        assert "With `--order f1`, a list made for weighted F1, " in text
        assert f" weighted F1 at the cut-off is {publish.percent(f1)} (" in text
    manifest.metrics["test"]["metrics"]["recall@20"]["value"] = 0.98765
    assert "| recall@20 | 98.8 % (" in publish.card(manifest)


def test_the_card_speaks_of_its_own_data_only_and_names_no_place(published, invented_cohort) -> None:
    """A checkpoint of an invented cohort must not claim to be trained on diabetic inpatients."""
    card = (published / "README.md").read_text(encoding="utf-8")
    assert not re.search("diabetic|encounter_id|UCI", card)
    text = (published / "mera.json").read_text() + card
    assert str(published.parent) not in text and str(invented_cohort.parent) not in text


def test_a_run_too_large_to_carry_is_refused_before_it_is_measured(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(publish, "LARGEST", 100_000)
    monkeypatch.setattr(publish.memory, "measure", lambda *args: pytest.fail("it was measured"))
    with pytest.raises(InputError, match=r"holds \d+ MB, more than the 0 MB"):
        publish.run(tiny_checkpoint, tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_the_readmes_results_stand_between_their_marks(published, tmp_path) -> None:
    manifest = read_manifest(published)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publish.BEGIN} -->\nold 12.3 %\n{publish.END} -->\nafter\n", encoding="utf-8")
    publish.fill_readme(readme, manifest)
    text = readme.read_text(encoding="utf-8")
    assert publish.results(manifest) in text and "old 12.3 %" not in text
    assert text.startswith("before\n") and text.endswith("after\n")
    publish.fill_readme(readme, manifest)
    assert readme.read_text(encoding="utf-8") == text  # again and again the same


def test_tuned_baselines_stand_in_place_of_the_quick_ones_the_strongest_first(published, tmp_path) -> None:
    manifest = read_manifest(published)
    parts = ("test", "validation")
    quick = {
        part: manifest.metrics[part]["metrics"]
        | {f"new_only_{name}": figure for name, figure in manifest.metrics[part]["new_only"].items()}
        for part in parts
    }

    def row(name: str, recall: float, new: float, ahead: float) -> dict:
        """A baseline of these recalls@20, of whole lists and of new codes, and by how much MERA is ahead on the latter."""
        metrics = quick["test"] | {
            key: {"value": value, "low": value, "high": value}
            for key, value in (("recall@20", recall), ("new_only_recall@20", new))
        }
        minus = {name: {"value": 0.01, "low": 0.0, "high": 0.02} for name in evaluate.COMPARED}
        minus |= {f"new_only_recall@{k}": {"value": ahead, "low": ahead - 0.01, "high": ahead + 0.01} for k in (10, 20)}
        return {"name": name, "told": f"what {name} is told"} | {
            part: {"metrics": metrics, "mera_minus_this": minus} for part in parts
        }

    rows = [
        row("tuned regression", 0.4321, 0.3579, -0.005),
        {"name": "absent", "not_run": "no environment"},
        row("factorised", 0.4567, 0.2468, 0.03),
    ]
    table = tmp_path / "baselines.json"
    kept = {"mera": quick, "rows": rows, "patients": {"train": 70}, "budget": "eight settings.", "interval": "95 %"}
    table.write_text(json.dumps(kept), encoding="utf-8")
    publish.put_tuned(manifest.metrics, table, evaluate.COMPARED)
    for text in (publish.results(manifest), publish.card(manifest)):
        new, lists = text[: text.index("hole lists")], text[text.index("hole lists") :]
        assert lists.index("| factorised |") < lists.index("| tuned regression |")
        assert "| 45.7 % (45.7 to 45.7) |" in lists and "| 35.8 % (35.8 to 35.8) |" in new  # new codes stand first
        assert new.index("| tuned regression | what tuned regression is told |") < new.index("| factorised | what")
        assert "recall@20 of new codes: MERA is above factorised; level with tuned regression." in new
        assert "logistic regression on the history" not in text and "absent" not in text
    assert "They are tuned: eight settings. Intervals: 95 %." in publish.card(manifest)
    kept["mera"] = quick | {"test": quick["test"] | {"recall@20": {"value": 0.9}}}
    table.write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(InputError, match="stands beside another checkpoint"):
        publish.put_tuned(manifest.metrics, table, evaluate.COMPARED)


def test_figures_of_an_earlier_version_are_written_without_new_codes(published) -> None:
    manifest = read_manifest(published)
    test = manifest.metrics["test"]
    for name in ("new_only", "f1_order"):
        test.pop(name)
    for each in test["baselines"]:
        for name in ("told", "new_only", "new_only_ours_minus_this"):
            each.pop(name)
    for text in (publish.results(manifest), publish.card(manifest)):
        assert "new codes" not in text.lower() and "| logistic regression told the record |" in text


def test_a_readme_without_the_marks_is_refused(published, tmp_path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here", encoding="utf-8")
    with pytest.raises(InputError, match="has no place for the results"):
        publish.fill_readme(readme, read_manifest(published))
    assert readme.read_text(encoding="utf-8") == "nothing here"


def test_a_folder_that_does_not_rank_is_refused_before_anything_is_measured(
    tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    manifest = Manifest(**(vars(read_manifest(tiny_checkpoint)) | {"label_space": ()}))
    monkeypatch.setattr(publish, "read_manifest", lambda source: manifest)
    monkeypatch.setattr(publish.memory, "measure", lambda *args: pytest.fail("measured"))
    with pytest.raises(InputError, match="was not trained to rank"):
        publish.run(tiny_checkpoint, tmp_path / "out", "no-data", "table")


def test_a_stage_1_that_went_on_tells_where_it_began() -> None:
    method: dict = {"memorize": {"seed": 4, "backbone": "some/model"}}
    for seed in (2, 7):
        method = {"memorize": {"seed": seed, "backbone": ""}, "before": method}
    manifest = tiny_manifest(method=method | {"rank": {"seed": 5}})
    assert publish._seeds(manifest) == "memorize 4 then 2 then 7, rank 5"
    assert publish._origin(manifest) == "The language model some/model"
    assert publish._origin(tiny_manifest(method={})).startswith("A small LLaMA")
