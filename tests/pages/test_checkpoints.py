"""The checkpoints that the app offers, how they are held, and pages under one that has memorized ICD codes only."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import pytest
import torch

from mera_core.checkpoint.folder import save_checkpoint
from mera_core.history.records import Patient, Visit
from pages.shared.app import checkpoints, engines
from pages.shared.app.markdown import plain
from tests.pages.apps import open_page, press, words
from tests.tiny import CODES, tiny_manifest, tiny_model


@pytest.fixture
def memory_only(tiny_stage1, monkeypatch) -> str:
    """The app under a checkpoint of stage 1."""
    monkeypatch.setenv(checkpoints.CHECKPOINT_VARIABLE, str(tiny_stage1))
    return tiny_stage1.name


def test_every_checkpoint_of_the_samples_is_offered_and_the_small_one_first(tmp_path, monkeypatch, tiny_checkpoint):
    (tmp_path / "no-checkpoint").mkdir()
    for name in ("another", "mera-mini", "one.partial", "two.old"):  # the last two are being written or replaced
        (tmp_path / name).mkdir()
        shutil.copy(tiny_checkpoint / "mera.json", tmp_path / name)
    monkeypatch.setattr(checkpoints, "BUNDLED_FOLDER", tmp_path)
    assert list(checkpoints.models().items()) == [("mera-mini", None), ("another", tmp_path / "another")]
    monkeypatch.setenv(checkpoints.CHECKPOINTS_VARIABLE, str(tiny_checkpoint.parent))
    assert [*checkpoints.models()][:2] == ["mera-mini", "another"]
    assert checkpoints.models()[tiny_checkpoint.name] == tiny_checkpoint
    monkeypatch.setenv(checkpoints.CHECKPOINT_VARIABLE, str(tiny_checkpoint))
    assert next(iter(checkpoints.models())) == tiny_checkpoint.name and "mera-mini" not in checkpoints.models()


def test_only_models_that_rank_are_there_to_compare_with(tmp_path, monkeypatch, tiny_checkpoint, tiny_stage1):
    """One that says nothing readable of itself is offered: choosing it says why it can't be had."""
    for name, content in (
        ("ranks", (tiny_checkpoint / "mera.json").read_text(encoding="utf-8")),
        ("torn", '{"stage": "m'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mera.json").write_text(content, encoding="utf-8")
    shutil.copytree(tiny_stage1, tmp_path / "remembers")
    monkeypatch.setattr(checkpoints, "BUNDLED_FOLDER", tmp_path / "none")
    monkeypatch.setenv(checkpoints.CHECKPOINTS_VARIABLE, str(tmp_path))
    assert list(checkpoints.models()) == ["mera-mini", "ranks", "remembers", "torn"]
    assert checkpoints.ranking_models() == ["mera-mini", "ranks", "torn"]
    monkeypatch.setattr(checkpoints, "LOOK_EVERY", 1e-6)
    shutil.copy(tiny_checkpoint / "mera.json", tmp_path / "remembers")  # it has learned to rank since
    assert "remembers" in checkpoints.ranking_models()


def test_the_environment_says_how_weights_are_held(monkeypatch):
    asked = []
    monkeypatch.setattr(engines, "_load", lambda folder, quantize=None: [asked.append(quantize)])
    for value, said, held in ((None, None, None), ("nf4", None, "nf4"), ("nf4", "bf16", "bf16"), ("", None, None)):
        monkeypatch.setenv(checkpoints.QUANTIZE_VARIABLE, value) if value is not None else None
        engines.engine("mera-mini", said)
        assert asked.pop() == held


@pytest.mark.parametrize("file", ["1_Predict.py", "2_Compare.py", "4_Cohort.py"])
def test_a_model_that_does_not_rank_says_so_where_rankings_are_shown(memory_only, file):
    app = open_page(file)
    assert not app.error and len(app.title) == 1
    (told,) = [info.value for info in app.info if "does not rank" in info.value]
    assert plain(memory_only) in told


def test_one_click_goes_on_with_a_model_that_ranks(tmp_path, monkeypatch, tiny_stage1):
    shutil.copytree(tiny_stage1, tmp_path / "remembers")
    monkeypatch.setattr(checkpoints, "BUNDLED_FOLDER", tmp_path)
    app = open_page("1_Predict.py")
    (chooser,) = [box for box in app.selectbox if box.label == "Model"]
    chooser.set_value("remembers").run()
    (go_on,) = [button for button in app.button if button.label == "Go on with mera\\-mini"]
    go_on.click().run()
    assert not app.exception and not any("does not rank" in info.value for info in app.info)
    assert [box.value for box in app.selectbox if box.label == "Model"] == ["mera-mini"]


@pytest.mark.parametrize("file", ["3_Recall.py", "5_Model_Card.py", "6_Audit.py"])
def test_the_other_pages_are_as_useful_with_it(memory_only, file):
    app = open_page(file)
    assert not app.error and not any("does not rank" in info.value for info in app.info)
    if file == "3_Recall.py":
        example = next(button for button in app.button if button.key.startswith("example_"))
        assert len(press(app, example.key).subheader) >= 1  # a model that was hardly taught answers wrong


def saved(folder: Path, seed: int) -> Path:
    save_checkpoint(tiny_model(seed=seed), tiny_manifest(), folder, torch.float32)
    return folder


@pytest.fixture
def served(tmp_path, monkeypatch) -> Path:
    """The folder of the checkpoint that the app serves, looked at whenever it is asked for."""
    monkeypatch.setattr(checkpoints, "LOOK_EVERY", 1e-6)
    monkeypatch.setattr(engines, "_settle", lambda: None)
    monkeypatch.setenv(checkpoints.CHECKPOINT_VARIABLE, str(tmp_path / "one"))
    return saved(tmp_path / "one", seed=1)


def gone(reference: weakref.ref) -> bool:
    gc.unfreeze()
    gc.collect()
    return reference() is None


def test_a_checkpoint_that_is_replaced_is_served_by_the_running_app(served):
    app = open_page("1_Predict.py", Patient((Visit(CODES[:3], age=60),)))
    old = engines.engine()
    name, model = old.name, weakref.ref(old.model)
    assert engines.engine() is old and name in words(app)
    del old
    saved(served, seed=5)
    app.run()
    assert not app.exception and engines.engine().name != name
    assert engines.engine().name in words(app)
    assert gone(model), "a session's rankings, or something else, still hold the model that was replaced"


def test_a_checkpoint_is_served_while_its_folder_is_gone_and_refused_where_the_new_one_is_not_whole(served):
    engine = engines.engine()
    served.rename(served.with_name("aside"))
    assert engines.engine() is engine
    saved(served, seed=5)
    (served / "model.safetensors").write_bytes(b"half")
    app = open_page("5_Model_Card.py")
    assert len(app.error) == 1 and "one" in app.error[0].value
    saved(served, seed=5)
    app.run()
    assert not app.error


def test_models_that_were_chosen_long_ago_do_not_stay_loaded(served, monkeypatch):
    for number in range(2, 6):
        saved(served.parent / "more" / f"model-{number}", seed=number)
    monkeypatch.setenv(checkpoints.CHECKPOINTS_VARIABLE, str(served.parent / "more"))
    loaded = {name: weakref.ref(engines.engine(name).model) for name in checkpoints.models()}
    assert [name for name, model in loaded.items() if not gone(model)] == ["model-3", "model-4", "model-5"]
