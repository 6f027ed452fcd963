"""The field for files of records: which files, in which format, and what came of reading them."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from mera_core.errors import InputError
from mera_core.readers import READERS, Cohort, ImportReport
from pages.shared.session import plain, sentence
from pages.shared.upload import read_uploads

ENDINGS = ("csv", "json", "jsonl", "ndjson", "parquet", "gz", "zip")
LARGEST = 50  # megabytes of one file
AUTO = "auto"


def upload(label: str, key: str, on_read: Callable[[str, Cohort], None]) -> None:
    """Files and their format. What was read goes to `on_read(name, cohort)`; what was refused is said below the field.

    key: names the widgets. A refusal stays until the next files come.
    """

    def take() -> None:
        files = st.session_state[f"{key}_files"]
        st.session_state[f"{key}_refused"] = ""
        if not files:
            return
        try:
            with st.spinner("Reading the files …"):
                cohort = read_uploads(files, st.session_state.get(f"{key}_format") or AUTO)
        except InputError as error:
            st.session_state[f"{key}_refused"] = sentence(str(error))
            return
        on_read(files[0].name if len(files) == 1 else f"{len(files)} files", cohort)

    st.file_uploader(
        label,
        type=list(ENDINGS),
        accept_multiple_files=True,
        key=f"{key}_files",
        help="Files that belong together (the tables of one data set) go in together, or as a ZIP. They are read on the "
        "machine that runs this app, and not kept.",
        max_upload_size=LARGEST,
        on_change=take,
    )
    st.selectbox(
        "Format",
        [AUTO, *READERS],
        format_func=lambda name: "recognise it" if name == AUTO else name,
        key=f"{key}_format",
        on_change=take,
        persist_state="session",
        width=240,
    )
    if refusal := st.session_state.get(f"{key}_refused"):
        st.error(refusal, icon=":material/error:")


def show_report(name: str, report: ImportReport) -> None:
    """What was read and what was left out, in the reader's words, folded away under a line that says how much."""
    left_out = sum(report.left_out.values())
    words = f"**{plain(name)}**: {report.patients:,} patients, {report.visits:,} visits, {report.codes:,} codes"
    words += f"; {left_out:,} entries left out" if left_out else "; everything was read"
    with st.expander(words, icon=":material/warning:" if left_out else ":material/check:"):
        st.markdown("\n".join(f"- {plain(line)}" for line in report.lines()))
