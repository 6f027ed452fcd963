"""How many patients a second `score` does: one worker, the whole command, Ray; each beside what one would do without it.

The patients are those of --data, or invented ones in the shape of UCI's. Figures are patients a second, so a ratio above 1
is faster than the alternative.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

from mera_core.engine import Engine
from mera_core.history.columns import VisitColumns
from mera_core.history.visits_file import write_visits
from mera_core.readers import read
from mera_core.scoring import Settings, slice_of
from mera_core.scoring.workers import Spec, torch_threads
from training.benchmark.invented import patients
from training.benchmark.machine import child_seconds, cores
from training.benchmark.rows import Row, Setting, mean_seconds, paired, row, seconds

TITLE = "Scoring a population, beside a loop over rank()"
PATIENTS, INVENTED = 65_536, 16_384  # most that are taken of --data; made up without it, and scored by one worker
LOOPED = 512
QUICK_PATIENTS, QUICK_LOOPED = 256, 32


def measure(setting: Setting) -> Iterator[Row]:
    """One worker without its start; the whole command with a worker a core; Ray with two, where it is installed.

    The alternative is `[engine.rank(patient) for patient in patients]`, loaded and warm, over the first patients that can be
    ranked: on one core beside one worker, with torch's threads on all cores beside the whole command.
    """
    most, looped = (QUICK_PATIENTS, QUICK_LOOPED) if setting.quick else (PATIENTS, LOOPED)
    engine, runs, many, settings = Engine.load(setting.checkpoint), setting.times(3), cores(), Settings()
    if setting.data is None:
        columns = VisitColumns.of(patients(min(most, INVENTED), sorted(engine.input_codes)))
    else:
        columns = read(setting.data, setting.format).columns
        columns = slice_of(columns, 0, min(most, len(columns.ids))).columns
    first = slice_of(columns, 0, min(len(columns.ids), INVENTED)).columns
    few = [patient for patient in first.patients()[: 2 * looped] if engine.read_history(patient)[0].visits][:looped]
    tokens = round(mean(len(engine.encode(engine.read_history(patient)[0]).input_ids) for patient in few), 1)
    scorer = Spec(setting.checkpoint, engine.name, settings).scorer()

    def facts(of: VisitColumns) -> dict[str, float]:
        sizes = {"patients": len(of.ids), "visits": len(of.person), "codes": len(of.code)}
        return sizes | {"tokens_a_patient": tokens}

    def loop(threads: int) -> float:
        with torch_threads(threads):
            mean_seconds(engine.rank, few[: looped // 8])  # warm with so many threads
            return 1 / mean_seconds(engine.rank, few)

    def one_worker() -> float:
        parts = range(-(-len(first.ids) // settings.part))
        with torch_threads(settings.threads):
            took = seconds(lambda: [scorer.score(slice_of(first, number, settings.part)) for number in parts])
        return len(first.ids) / took

    words = f"a loop over Engine.rank, one core, {len(few)} patients"
    took = paired(one_worker, lambda: loop(1), runs)
    one = row("one worker on one core, without its start", "patients/s", words, *took, **facts(first))
    yield one | {"core_hours_a_million": _hours_a_million(one["value"])}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "visits.parquet"
        write_visits(columns, source)

        def command(workers: int, *more: str) -> float:
            options = ["--format", "table", "--checkpoint", str(setting.checkpoint), "--workers", str(workers), *more]
            with tempfile.TemporaryDirectory() as folder:
                options += ["--out", f"{folder}/predictions.parquet"]
                return len(columns.ids) / child_seconds(
                    [sys.executable, "-m", "mera_core", "score", str(source), *options]
                )

        words = f"a loop over Engine.rank on {many} cores, already loaded"
        took = paired(lambda: command(many), lambda: loop(many), runs)
        whole = row(f"the command from start to end, {many} workers", "patients/s", words, *took, **facts(columns))
        yield whole | {"hours_a_million": _hours_a_million(whole["value"])}
        if find_spec("ray") is not None:
            words, what = "the same by two processes of this machine", "Ray Data with 2 workers, from start to end"
            took = paired(lambda: command(2, "--engine", "ray"), lambda: command(2), runs)
            yield row(what, "patients/s", words, *took, **facts(columns))


def _hours_a_million(rate: float) -> float:
    return float(f"{1e6 / rate / 3600:.3g}")
