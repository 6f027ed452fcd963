"""The field for files of records: which files, in which format, and what came of reading them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.icd.ontology import SYSTEM_NAMES
from mera_core.readers import READERS, Cohort, ImportReport
from mera_core.readers.table.wide import WideTableError
from pages.shared.app.markdown import plain, sentence
from pages.shared.widgets.upload import read_uploads

ENDINGS = ("csv", "json", "jsonl", "ndjson", "parquet", "gz", "zip")
AUTO = "auto"
_COLUMNS = {
    "patient_id": "Patient id", "time": "Date of the stay", "visit_id": "Id of the stay", "age": "Age in years", "sex": "Sex",
}  # fmt: skip


def upload(label: str, key: str, on_read: Callable[[str, Cohort], None]) -> None:
    """Files and their format. What was read goes to `on_read(name, cohort)`; what was refused is said below the field.

    key: names the widgets. Each time files come the field is a new, empty one: a corrected file is not read together with
    the one that was refused. A refusal stays until the next files come; another format reads the same files again. A table of
    one row a stay is read once its columns are named in the form that is then shown.
    """
    times = f"{key}_uploads"
    st.session_state.setdefault(times, 0)
    field = f"{key}_files_{st.session_state[times]}" if st.session_state[times] else f"{key}_files"
    sent = f"{key}_sent"

    def take() -> None:
        if files := st.session_state.get(field):
            st.session_state[sent] = files
            st.session_state[times] += 1
            read_again()

    def read_again(named: bool = False) -> None:
        files = st.session_state.get(sent)
        st.session_state[f"{key}_refused"] = ""
        if not files:
            return
        wide = st.session_state.pop(f"{key}_wide", None)
        try:
            with st.spinner("Reading the files …"):
                cohort = (
                    read_uploads(files, "table", **_as_named(key))
                    if named
                    else read_uploads(files, st.session_state.get(f"{key}_format") or AUTO)
                )
        except WideTableError as error:
            st.session_state[f"{key}_wide"] = (error.names, error.patterns)
            return
        except InputError as error:
            st.session_state[f"{key}_refused"] = sentence(str(error))
            if named:
                st.session_state[f"{key}_wide"] = wide
            return
        on_read(files[0].name if len(files) == 1 else f"{len(files)} files", cohort)

    st.file_uploader(
        label,
        type=list(ENDINGS),
        accept_multiple_files=True,
        key=field,
        help="Files that belong together (the tables of one data set) go in together, or as a ZIP. They are read on the "
        "machine that runs this app, and kept no longer than this session.",
        max_upload_size=max(1, current_limits().upload_bytes // 1_000_000),  # megabytes
        on_change=take,
    )
    st.selectbox(
        "Format",
        [AUTO, *READERS],
        format_func=lambda name: "recognize automatically" if name == AUTO else name,
        key=f"{key}_format",
        on_change=read_again,
        persist_state="session",
        width=240,
    )
    if refusal := st.session_state.get(f"{key}_refused"):
        st.error(refusal, icon=":material/error:")
    if wide := st.session_state.get(f"{key}_wide"):
        _name_columns(key, *wide, read_again)


def _name_columns(key: str, names: list[str], patterns: list[str], read_again: Callable[[bool], None]) -> None:
    """A form that asks which columns of a table of one row a stay are which."""
    with st.form(f"{key}_wide_form"):
        st.markdown(
            "**This table has numbered columns of diagnoses.** Say what its columns are; the others are not read."
        )
        with st.container(horizontal=True):
            st.selectbox("Diagnoses (* is the number)", patterns, key=f"{key}_wide_code", width=220)
            st.selectbox(
                "Code system",
                list(SYSTEM_NAMES),
                format_func=SYSTEM_NAMES.get,
                key=f"{key}_wide_system",
                index=1,
                width=220,
            )
            for ours, label in _COLUMNS.items():
                st.selectbox(label, names, index=None, placeholder="none", key=f"{key}_wide_{ours}", width=220)
        st.form_submit_button("Read the table", type="primary", on_click=read_again, args=(True,))


def _as_named(key: str) -> dict[str, Any]:
    """What the form says, as options of the table's reader. Raises InputError where no column holds the patient's id."""
    columns = {ours: name for ours in ("code", *_COLUMNS) if (name := st.session_state[f"{key}_wide_{ours}"])}
    if "patient_id" not in columns:
        raise InputError("Say which column holds the patient's id.")
    return {"columns": columns, "system": st.session_state[f"{key}_wide_system"]}


def show_report(name: str, report: ImportReport) -> None:
    """What was read and what was left out, in the reader's words and as a table, folded away under a line that says how much."""
    left_out = sum(report.left_out.values())
    words = f"**{plain(name)}**: {report.patients:,} patients, {report.visits:,} visits, {report.codes:,} codes"
    words += f"; {left_out:,} entries left out" if left_out else "; everything was read"
    with st.expander(words, icon=":material/warning:" if left_out else ":material/check:"):
        st.markdown("\n".join(f"- {plain(line)}" for line in report.lines()))
        st.table(_counts(report), hide_index=True, border="horizontal")


def _counts(report: ImportReport) -> pd.DataFrame:
    """Every count of the report; its words may be a file's, and are shown as they stand."""
    counts = report.to_frame()
    counts = counts[(counts["count"] > 0) | (counts["kind"] == "source")]
    return counts.assign(what=counts["what"].map(plain), count=[f"{count:,}" for count in counts["count"]])
