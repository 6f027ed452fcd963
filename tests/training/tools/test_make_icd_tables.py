"""The shipped tables are what the builder makes, and say where they come from."""

import hashlib
import re

import pytest

from mera_core.icd.ontology import SYSTEMS, Ontology
from training.tools import make_icd_tables


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # simple-icd-10-cm's own
def test_a_rebuild_gives_the_shipped_bytes(tmp_path):
    make_icd_tables.build(tmp_path)
    shipped = {path.name: path.read_bytes() for path in make_icd_tables.DATA.iterdir() if path.is_file()}
    rebuilt = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert rebuilt.keys() == shipped.keys()
    for name, data in rebuilt.items():
        assert data == shipped[name], name


def test_provenance_names_every_file_with_its_checksum():
    text = (make_icd_tables.DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    tables = list(make_icd_tables.DATA.glob("*.gz"))
    assert len(tables) == 6
    for path in tables:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert re.search(rf"\| {re.escape(path.name)} \| [\d,]+ \| [\d,]+ \| {digest} \|", text)
    book = Ontology.load()
    for system in SYSTEMS:
        assert f"{len(book.nodes(system)):,} nodes, {len(book.billable(system)):,} billable" in text


def test_a_title_with_a_tab_is_refused():
    with pytest.raises(ValueError, match="tab"):
        make_icd_tables.tree_file([("A00", "3", "b", "Chol\tera")])
