"""`score`: each patient's own ranking, everyone accounted for, and one result whatever happened on the way to it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mera_core import scoring
from mera_core.checkpoint.folder import save_checkpoint
from mera_core.cohort.targets import NO_CODE, NO_READABLE_CODE, NO_TRUTH, ONE_VISIT
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.ranking.calibration import Calibration
from mera_core.ranking.ranking import NOTICE
from mera_core.scoring import store
from tests.conftest import COURSES, ROOT, invented_patients
from tests.tiny import icd9, tiny_manifest, tiny_model, tiny_vocabulary

CODES = tuple(sorted(icd9(*{code for course in COURSES for visit in course for code in visit} - {"E880.9"})))

ODD = (
    Patient((Visit(("428.0",)), Visit()), id="no codes at the last visit"),
    Patient((Visit(),), id="no codes"),
    Patient((Visit(("E880.9",)),), id="nothing readable"),
    Patient((Visit(("428.0", "I10", "E880.9")), Visit(("427.31", "428.0"))), sex="F", age=70, id='=odd, and "quoted"'),
    Patient((Visit(("428.0",)),), sex="M", id="one visit"),
)


def tiny(seed: int = 0):
    """A model, 32 wide with random weights, that reads and ranks what the invented patients have, but for falls."""
    return tiny_model(CODES, tiny_vocabulary(CODES), seed=seed)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A calibrated checkpoint of `tiny`."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    calibration = Calibration("platt", slope=0.7, intercept=-1.0).to_dict()
    save_checkpoint(tiny(), tiny_manifest(CODES, calibration=calibration), folder)
    return folder


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    """Invented patients, every second one with dates, and some that are odd."""
    dated = [
        replace(p, visits=tuple(replace(v, time=datetime(2020, 1, 1 + n)) for n, v in enumerate(p.visits)))
        if place % 2
        else p
        for place, p in enumerate(invented_patients(150))
    ]
    return [*dated[:70], *ODD, *dated[70:]]


@pytest.fixture(scope="module")
def source(tmp_path_factory, patients) -> Path:
    path = tmp_path_factory.mktemp("source") / "visits.csv"
    write_visits(patients, path)
    return path


@pytest.fixture
def job(source, checkpoint, tmp_path) -> scoring.Job:
    settings = scoring.Settings(part=32, top=5, rows=8)
    return scoring.Job(source, tmp_path / "p.parquet", settings, "table", checkpoint)


def of(job: scoring.Job, **settings) -> scoring.Job:
    return replace(job, settings=replace(job.settings, **settings))


def left_out(job: scoring.Job) -> dict[str, str]:
    with store.left_out_file(job.out).open(newline="", encoding="utf-8") as file:
        return {row["patient_id"]: row["reason"] for row in csv.DictReader(file)}


def interrupted(job: scoring.Job, after: int) -> None:
    """A run that is stopped when so many parts are through."""

    def stop(what: str, done: int, total: int) -> None:
        if what == "scoring" and done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring.run(job, stop)


def test_every_row_is_the_engines_own_ranking(job, patients, checkpoint):
    result = scoring.run(job)
    table = pq.read_table(job.out).to_pandas()
    engine = Engine.load(checkpoint)
    assert table["order_key"].is_monotonic_increasing
    place = {patient.id: number for number, patient in enumerate(patients)}
    for identity, rows in table.groupby("patient_id", sort=False):
        whole = engine.rank(
            replace(patients[place[identity]], visits=tuple(v for v in patients[place[identity]].visits if v.codes))
        )
        frame = whole.to_frame().head(max(5, whole.predicted))
        assert rows["code"].tolist() == frame["code"].tolist()
        assert rows["rank"].tolist() == frame["rank"].tolist()
        for name in ("score", "share", "probability"):
            np.testing.assert_allclose(rows[name], frame[name], atol=1e-5)
        for name in ("above_cut", "recurrent", "system"):
            assert rows[name].tolist() == frame[name].tolist()
        assert set(rows["order_key"]) == {place[identity]}
    assert set(table["notice"]) == {NOTICE}
    assert set(table["checkpoint"]) == {engine.name}
    assert pq.read_schema(job.out).metadata[b"mera.notice"].decode() == NOTICE
    assert (result.patients, result.rows, result.parts) == (155, len(table), 5)


def test_everyone_is_in_the_result_or_left_out_by_name(job, patients):
    result = scoring.run(job)
    scored = set(pq.read_table(job.out)["patient_id"].to_pylist())
    absent = left_out(job)
    assert absent == {"no codes": NO_CODE, "nothing readable": NO_READABLE_CODE}
    assert scored | set(absent) == {patient.id for patient in patients}
    assert not scored & set(absent)
    assert result.scored == len(scored)
    assert result.left_out == {NO_CODE: 1, NO_READABLE_CODE: 1}
    assert result.unread["ICD9:E880.9"] > 0  # a code that no label stands for, in a history that was scored
    assert any("ICD9:E880.9" in line for line in result.lines())
    assert result.lines()[-1] == NOTICE


def test_a_visit_held_out_is_not_read_and_says_what_came_true(job, patients):
    held = of(job, hold_out=True, top=10)
    scoring.run(held)
    rows = pq.read_table(job.out).to_pandas()
    shorter = {
        p.id: [v for v in p.visits if v.codes][-1].codes for p in patients if sum(bool(v.codes) for v in p.visits) > 1
    }
    assert set(rows["patient_id"]) == set(shorter)
    for identity, own in rows.groupby("patient_id", sort=False):
        true = {code for code, came in zip(own["code"], own["came_true"], strict=True) if came}
        assert true == {str(code) for code in shorter[identity]} & set(own["code"])
    assert left_out(job)["one visit"] == ONE_VISIT
    assert left_out(job)["no codes at the last visit"] == ONE_VISIT
    assert NO_TRUTH not in left_out(job).values()
    # the same patients without their last visit, scored for the visit to come, get the same ranking
    cut = [replace(p, visits=v[:-1], age=v[-2].age) for p in patients if len(v := [v for v in p.visits if v.codes]) > 1]
    other = job.out.with_name("cut.csv")
    write_visits(cut, other)
    scoring.run(replace(of(job, top=10), source=other, out=job.out.with_name("cut.parquet")))
    again = pq.read_table(job.out.with_name("cut.parquet")).to_pandas()
    assert again[["patient_id", "code", "rank"]].equals(rows[["patient_id", "code", "rank"]])


def test_the_size_of_parts_and_batches_changes_no_figure(job):
    scoring.run(job)
    first = pq.read_table(job.out).to_pandas()
    scoring.run(replace(of(job, part=1000, rows=64), out=job.out.with_name("other.parquet")))
    other = pq.read_table(job.out.with_name("other.parquet")).to_pandas()
    figures = ["score", "share", "probability"]
    assert first.drop(columns=figures).equals(other.drop(columns=figures))
    np.testing.assert_allclose(first["score"], other["score"], atol=1e-5)


def test_csv_has_the_same_rows_and_nothing_that_runs(job):
    scoring.run(job)
    table = replace(job, out=job.out.with_suffix(".csv"))
    scoring.run(table)
    rows, text = pq.read_table(job.out).to_pandas(), table.out.read_text(encoding="utf-8")
    with table.out.open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [cell["code"] for cell in cells] == rows["code"].tolist()
    assert [float(cell["score"]) for cell in cells] == pytest.approx(rows["score"].tolist(), abs=1e-6)
    odd = '=odd, and "quoted"'
    assert odd in set(rows["patient_id"])
    assert {cell["patient_id"] for cell in cells} == set(rows["patient_id"]) - {odd} | {"'" + odd}
    assert NOTICE in text


def test_stopped_and_started_again_it_goes_on_and_ends_in_the_same_bytes(job):
    scoring.run(job)
    whole, beside = job.out.read_bytes(), store.left_out_file(job.out).read_bytes()
    job.out.unlink()
    interrupted(job, after=2)
    assert not job.out.exists()
    assert len(list(store.parts_folder(job.out).glob("part-*.parquet"))) == 2
    result = scoring.run(job)
    assert result.resumed == 2
    assert "resumed: 2 of 5 parts" in "\n".join(result.lines())
    assert job.out.read_bytes() == whole
    assert store.left_out_file(job.out).read_bytes() == beside
    assert not store.parts_folder(job.out).exists()


def test_a_run_of_something_else_is_refused_and_can_be_thrown_away(job, source, checkpoint, tmp_path):
    interrupted(job, after=1)
    other_model = tmp_path / "tiny"
    save_checkpoint(tiny(seed=3), tiny_manifest(CODES), other_model)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text(source.read_text().rstrip("\n").rpartition("\n")[0])
    for changed, said in (
        (of(job, top=6), "a run with other settings"),
        (replace(job, source=fewer), "a run with other patients"),
        (replace(job, checkpoint=other_model), "a run with another checkpoint"),
        (replace(of(job, top=6), checkpoint=other_model), "another checkpoint and other settings"),
    ):
        with pytest.raises(InputError, match=f"{said}.*--restart throws them away, another --out keeps them"):
            scoring.run(changed)
    assert len(list(store.parts_folder(job.out).glob("part-*.parquet"))) == 1, "a refusal must not touch them"
    assert scoring.run(replace(of(job, top=6), restart=True)).resumed == 0
    renamed = replace(job, source=source.with_name("again.csv"))
    interrupted(job, after=1)
    renamed.source.write_bytes(source.read_bytes())
    assert scoring.run(renamed).resumed == 1  # the same patients from another file


def test_a_damaged_part_is_scored_again(job):
    scoring.run(job)
    whole = job.out.read_bytes()
    interrupted(job, after=4)
    folder = store.parts_folder(job.out)
    parts = sorted(folder.glob("part-*.parquet"))
    parts[0].write_bytes(parts[0].read_bytes()[:-20])
    parts[1].write_bytes(b"")
    parts[2].write_bytes(parts[3].read_bytes())  # whole, but another part's
    (folder / ".part-000009.parquet.1.aside").write_bytes(b"cut short")
    assert scoring.run(job).resumed == 1
    assert job.out.read_bytes() == whole


def test_patients_are_told_apart_by_what_their_histories_hold(patients):
    columns = VisitColumns.of(patients)
    same = VisitColumns.of(list(patients))
    assert store.columns_hash(columns) == store.columns_hash(same)
    told = {store.columns_hash(columns)}
    for changed in (
        replace(patients[3], sex="U"),
        replace(patients[3], age=None),
        replace(patients[3], details={"ethnicity": "other"}),
        replace(patients[3], visits=patients[3].visits[:-1]),
        replace(patients[3], visits=(*patients[3].visits[:-1], Visit(("428.0",), datetime(2021, 1, 1)))),
        replace(patients[3], id="another"),
    ):
        told.add(store.columns_hash(VisitColumns.of([*patients[:3], changed, *patients[4:]])))
    assert len(told) == 7


def test_the_folder_of_parts_is_one_runs_alone(job, monkeypatch):
    folder = store.parts_folder(job.out)
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds mine\.txt, which is no part of a scoring"):
        scoring.run(job)
    (folder / "mine.txt").unlink()
    (folder / store.JOB).write_text('{"settings": "those of a command that was refused later"}')
    with store.opened(job.out, {}, 1), pytest.raises(InputError, match="another process is writing"):
        scoring.run(job)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(store.pq, "write_table", full)
        with pytest.raises(InputError, match=r"part-000000\.parquet can't be written: No space left on device"):
            scoring.run(job)
    assert scoring.run(job).resumed == 0


def test_settings_refuse_what_contradicts_itself():
    with pytest.raises(InputError, match='quantize is "bogus"'):
        scoring.Settings(quantize="bogus")
    with pytest.raises(InputError, match="top must be at least 1"):
        scoring.Settings(top=0)


# --- processes that die


def dying(job: scoring.Job, number: int, after: bool) -> None:
    """A run whose process is gone before or after its n-th step, each of which leaves the folder in another state."""
    steps = count(1)

    def counted(real: Callable) -> Callable:
        def step(*arguments, **named):
            last = next(steps) == number
            if last and not after:
                os._exit(9)
            try:
                return real(*arguments, **named)
            finally:  # the removal of what is not there is a step as well
                if last:
                    os._exit(9)

        return step

    os.replace, os.unlink = counted(os.replace), counted(os.unlink)
    scoring.run(job)


def status_of_fork(*call) -> int:
    process = get_context("fork").Process(target=call[0], args=call[1:])
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_each_rename_and_removal_the_result_is_the_same(source, checkpoint, tmp_path, after):
    job, whole = (
        scoring.Job(source, tmp_path / name, scoring.Settings(part=60), "table", checkpoint)
        for name in ("p.parquet", "whole.parquet")
    )
    scoring.run(whole)
    pairs, number = [(job.out, whole.out), tuple(store.left_out_file(each.out) for each in (job, whole))], 1
    while status_of_fork(dying, job, number, after):
        assert status_of_fork(scoring.run, job) == 0, f"no restart after step {number}"
        assert all(one.read_bytes() == other.read_bytes() for one, other in pairs), (
            f"another result after step {number}"
        )
        assert set(tmp_path.iterdir()) == {*pairs[0], *pairs[1]}, f"something is left after step {number}"
        for one, _ in pairs:
            one.unlink()
        number += 1
    assert number > 10


def test_a_killed_command_leaves_no_worker_and_goes_on(job, source, checkpoint, tmp_path):
    """The command with two worker processes, killed when a part is there; then to its end; beside one worker's result."""
    shutil.copytree(ROOT / "mera_core", tmp_path / "mera_core")  # an edit of the source while this runs changes nothing
    out = tmp_path / "two.parquet"
    command = [sys.executable, "-m", "mera_core", "score", str(source), "--format", "table", "--out", str(out)]
    command += ["--checkpoint", str(checkpoint), "--workers", "2", "--top", "5", "--part", "32"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: set[int] = set()
    end = time.monotonic() + 120
    while process.poll() is None and not list(store.parts_folder(out).glob("part-*.parquet")):
        workers |= children_of(process.pid)
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 10
    while any(alive(each) for each in workers):
        assert time.monotonic() < end, "workers live on after their parent was killed"
        time.sleep(0.1)
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored"] == 153
    one = replace(job, settings=scoring.Settings(top=5, part=32))
    scoring.run(one)
    assert out.read_bytes() == one.out.read_bytes()


def children_of(process: int) -> set[int]:
    """Process ids of the children, where the system tells."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return {int(each) for each in listed.read_text().split()} if listed.exists() else set()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
