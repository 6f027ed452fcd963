"""docs/train_on_gpu.md: its table is what `plan` computes, and each of its commands runs, on tiny stand-ins."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mera_core.__main__ import app as core
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit, resolve
from mera_core.icd.ontology import Ontology
from tests.conftest import invented_patients
from tests.readers import shapes
from tests.training.families import small_book, write_backbone
from training.__main__ import app as training
from training.common.config import MemorizeConfig, RankConfig
from training.memorize import run as memorize
from training.plan.memory import CohortSize
from training.plan.run import Machine, make_all, table

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "train_on_gpu.md").read_text(encoding="utf-8")
CONFIGS = ROOT / "training" / "configs"
SHOWN = ("llama2-7b-{}-full", "llama2-7b-{}-lora", "llama2-7b-{}-qlora", "flan-t5-xl-{}-lora")
SMALL = {  # what a stand-in changes: size and speed, never which code runs
    "memorize": {"epochs": 1, "batch_size": 32, "learning_rate": 5e-3, "sampled_negatives": 32, "precision": "float32"},
    "rank": {"epochs": 1, "batch_size": 16, "max_tokens": 256, "rehearsal": 8, "validate_every": 0},
}


def test_the_table_is_what_plan_computes() -> None:
    """Make it again with: python -m training plan --config ... (the configurations in the order of the table)."""
    paths = [CONFIGS / f"{name.format(stage)}.yaml" for name in SHOWN for stage in ("memorize", "rank")]
    between = re.search(r"<!-- plan: begin[^\n]*-->\n(.*?)\n?<!-- plan: end -->", GUIDE, re.DOTALL)
    assert between and between[1].strip() == table(make_all(paths, CohortSize(), Machine()))


def commands() -> list[list[str]]:
    found = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in found for line in block.splitlines() if line.strip()]


def test_every_configuration_that_is_named_is_there() -> None:
    named = re.findall(r"[\w-]+-(?:memorize|rank)-\w+\.yaml", GUIDE)
    assert len(named) > 8 and all((CONFIGS / name).is_file() for name in named)


def dated(patients: list[Patient]) -> list[Patient]:
    """The patients with numbers for names and a visit each half year."""
    known = [resolve(patient, Ontology.load())[0] for patient in patients]
    times = [datetime(2030 + n // 2, 1 + 6 * (n % 2), 1, 8) for n in range(9)]
    visits = [tuple(replace(v, time=time) for v, time in zip(p.visits, times, strict=False)) for p in known]
    return [replace(p, id=str(n), visits=visits[n]) for n, p in enumerate(known)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the guide's own command lines work: tiny backbone, MIMIC-shaped tables, configurations cut down."""
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: small_book())
    write_backbone(tmp_path / "models" / "llama-2-7b", "llama")
    shapes.mimic3(dated(invented_patients(150)), tmp_path / "path" / "to" / "mimic-iii")
    folder = tmp_path / "training" / "configs"
    folder.mkdir(parents=True)
    for stage, small in SMALL.items():
        values = yaml.safe_load((CONFIGS / f"llama2-7b-{stage}-qlora.yaml").read_text(encoding="utf-8"))
        values |= small | {"precision": "float32", "save_every": 0}
        if stage == "memorize":
            values["backbone"] = "models/llama-2-7b"
        (MemorizeConfig if stage == "memorize" else RankConfig)(**values)
        (folder / f"llama2-7b-{stage}-qlora.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    billable = [code for code in small_book() if Ontology.load().is_billable(code)]
    for command in commands():
        if command[0] == "hf":
            assert shutil.which("hf", path=str(ROOT / ".venv" / "bin")) or shutil.which("hf")
            continue
        assert command[:2] == ["python", "-m"], command
        app = {"training": training, "mera_core": core}[command[2]]
        options = ["--workers", "1"] if command[3] == "score" else ["--draws", "20"] if command[3] == "evaluate" else []
        with monkeypatch.context() as patch:
            if command[3] == "recall":  # asks about every code of the book, of which the stand-in knows a few
                patch.setattr(Ontology, "billable", lambda self, system: billable)
            done = CliRunner().invoke(app, [*command[3:], *options])
        assert done.exit_code == 0, (command, done.output, done.exception)
    engine = Engine.load("runs/llama2-7b", quantize="nf4")
    kinds = {type(module).__name__ for module in engine.model.backbone.modules()}
    assert "Linear4bit" in kinds
    ranking = engine.rank(Patient([Visit(["428.0", "401.9"], age=70)], sex="F", age=70))
    assert len(ranking.codes) > 20 and ranking.probability is not None
    assert (workplace / "predictions.parquet").is_file()
