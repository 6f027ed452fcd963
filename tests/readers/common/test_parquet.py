"""Damaged parquet in every format that reads it: one sentence or a whole account, never an error of the library."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.readers import read
from mera_core.readers.common.parquet import damage_told, schema_of, sound
from mera_core.writers import write
from tests.readers import shapes
from tests.readers.test_broken_sources import PATIENTS as CODED

CHANGES = 150
PATIENTS = [
    Patient([Visit(["428.0", "I50.22", "foo"]), Visit(["ICD9:250.00"])], id=f"p{number}", sex="F")
    for number in range(40)
]


def visits_table(folder: Path) -> tuple[Path, Path, str]:
    write_visits(PATIENTS, folder / "t.parquet")
    return folder / "t.parquet", folder / "t.parquet", "table"


def meds(folder: Path) -> tuple[Path, Path, str]:
    write(read(visits_table(folder)[0]), folder / "meds", "meds")
    return folder / "meds", next((folder / "meds" / "data").rglob("*.parquet")), "meds"


def omop(folder: Path) -> tuple[Path, Path, str]:
    shapes.omop(CODED, folder, packed=True)
    return folder, folder / "condition_occurrence.parquet", "omop"


def changed(content: bytes, draw: random.Random) -> bytes:
    """A few bytes written over: anywhere, or in the footer, which says what all others are."""
    bytes_ = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        begin = len(bytes_) * 2 // 3 if draw.random() < 0.5 else 0
        bytes_[draw.randrange(begin, len(bytes_))] = draw.randrange(256)
    return bytes(bytes_)


@pytest.mark.parametrize("make", [visits_table, meds, omop])
@pytest.mark.parametrize("format", ["named", "auto"])
def test_changed_bytes_are_one_sentence_or_read_to_the_end(tmp_path, make, format):
    source, file, named = make(tmp_path)
    content, draw, refused = file.read_bytes(), random.Random(11), 0
    assert read(source, named).report.rows
    for _ in range(CHANGES):
        file.write_bytes(changed(content, draw))
        try:
            report = read(source, named if format == "named" else "auto").report
            assert report.rows == report.codes + sum(report.left_out.values())
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > CHANGES / 10


def test_text_that_is_not_utf8_is_told_when_it_is_read(tmp_path):
    column = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(InputError, match=r"a\.parquet is a damaged parquet file"), damage_told(tmp_path / "a.parquet"):
        sound(pa.table({"code": column}))


def test_what_is_ours_passes_as_it_is(tmp_path):
    with pytest.raises(InputError, match=r"^mine$"), damage_told(tmp_path):
        raise InputError("mine")
    with pytest.raises(KeyError), damage_told(tmp_path):
        raise KeyError("a fault of ours")
    with pytest.raises(InputError, match="needs more memory"), damage_told(tmp_path / "a"):
        raise pa.ArrowMemoryError("malloc of size 1 failed")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="damaged parquet"):
        schema_of(tmp_path / "a.parquet")
