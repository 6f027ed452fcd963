"""How many patients a second `score` does: one worker, the whole command, Ray; each beside what one would do without it.

The patients are those of --data, or invented ones whose histories are as long as UCI's and MIMIC's are. Figures are patients a
second, so a ratio above 1 is faster than the alternative.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

from mera_core.engine import Engine
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient, Visit
from mera_core.history.visits_file import write_visits
from mera_core.readers import read
from mera_core.scoring import Settings, slice_of
from mera_core.scoring.predict import Scorer
from mera_core.scoring.workers import Spec, torch_threads
from training.benchmark.machine import cores
from training.benchmark.processes import child
from training.benchmark.rows import Row, Setting, paired, row, seconds

TITLE = "Scoring a population, beside a loop over rank()"
PATIENTS, INVENTED = 65_536, 16_384  # most that are taken of --data; made up without it, and scored by one worker
LOOPED = 512
QUICK_PATIENTS, QUICK_LOOPED = 256, 32
MILLION = 1_000_000


def measure(setting: Setting) -> Iterator[Row]:
    """One worker without its start; the whole command with a worker a core; Ray with two, where it is installed.

    The alternative is `[engine.rank(patient) for patient in patients]`, loaded and warm, over the first patients that can be
    ranked: on one core beside one worker, with torch's threads on all cores beside the whole command.
    """
    most, looped = (QUICK_PATIENTS, QUICK_LOOPED) if setting.quick else (PATIENTS, LOOPED)
    engine = Engine.load(setting.checkpoint)
    columns = _patients(setting, engine, most)
    first = slice_of(columns, 0, min(len(columns.ids), INVENTED)).columns
    few = [patient for patient in first.patients()[: 2 * looped] if engine.read_history(patient)[0].visits][:looped]
    tokens = mean(len(engine.encode(engine.read_history(patient)[0]).input_ids) for patient in few)
    runs, settings = setting.times(3), Settings()
    scorer = Spec(setting.checkpoint, engine.name, settings).scorer()

    def loop(threads: int) -> float:
        with torch_threads(threads):
            for patient in few[: looped // 8]:  # warm with so many threads
                engine.rank(patient)
            return len(few) / seconds(lambda: [engine.rank(patient) for patient in few])

    values, others = paired(lambda: _one_worker(scorer, first), lambda: loop(1), runs)
    words = f"a loop over Engine.rank, one core, {len(few)} patients"
    one = row("one worker on one core, without its start", values, "patients/s", words, others, **_facts(first, tokens))
    yield one | {"core_hours_a_million": _hours(one["value"])}
    facts = _facts(columns, tokens)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "visits.parquet"
        write_visits(columns, source)
        many = cores()
        values, others = paired(lambda: _command(setting, source, len(columns.ids), many), lambda: loop(many), runs)
        words = f"a loop over Engine.rank on {many} cores, already loaded"
        whole = row(f"the command from start to end, {many} workers", values, "patients/s", words, others, **facts)
        yield whole | {"hours_a_million": _hours(whole["value"])}
        if find_spec("ray") is not None:
            values, others = paired(
                lambda: _command(setting, source, len(columns.ids), 2, "--engine", "ray"),
                lambda: _command(setting, source, len(columns.ids), 2),
                runs,
            )
            words = "the same by two processes of this machine"
            yield row("Ray Data with 2 workers, from start to end", values, "patients/s", words, others, **facts)


def _facts(columns: VisitColumns, tokens: float) -> dict[str, float]:
    sizes = {"patients": len(columns.ids), "visits": len(columns.person), "codes": len(columns.code)}
    return sizes | {"tokens_a_patient": round(tokens, 1)}


def _one_worker(scorer: Scorer, columns: VisitColumns) -> float:
    settings = scorer.settings
    parts = range(-(-len(columns.ids) // settings.part))
    with torch_threads(settings.threads):
        took = seconds(lambda: [scorer.score(slice_of(columns, number, settings.part)) for number in parts])
    return len(columns.ids) / took


def _command(setting: Setting, source: Path, patients: int, workers: int, *more: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        out = str(Path(name) / "predictions.parquet")
        command = [sys.executable, "-m", "mera_core", "score", str(source), "--format", "table", "--out", out]
        command += ["--checkpoint", str(setting.checkpoint), "--workers", str(workers), *more]
        return patients / child(command).seconds


def _hours(rate: float) -> float:
    return float(f"{MILLION / rate / 3600:.3g}")


def _patients(setting: Setting, engine: Engine, count: int) -> VisitColumns:
    """The first patients of --data, or invented ones of one to six visits of two to ten codes."""
    if setting.data is not None:
        columns = read(setting.data, setting.format).columns
        return slice_of(columns, 0, min(count, len(columns.ids))).columns
    count, draw = min(count, INVENTED), random.Random(1)
    codes = sorted(engine.input_codes)
    patients = []
    for number in range(count):
        age = draw.randint(20, 85)
        visits = [
            Visit(tuple(draw.sample(codes, draw.randint(2, 10))), age=age + step) for step in range(draw.randint(1, 6))
        ]
        patients.append(Patient(tuple(visits), draw.choice("FM"), visits[-1].age, f"invented-{number}"))
    return VisitColumns.of(patients)
