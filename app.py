"""MERA's home page: what this is, which model is loaded, and the way to the pages. Start with `make app`."""

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.history.records import Patient
from pages.shared.app.engines import engine
from pages.shared.app.histories import demos
from pages.shared.app.layout import heading, open_session, page_files, page_link, page_name
from pages.shared.app.markdown import plain

open_session("Home")

WHAT_FOR = {
    "Predict": "rank the diagnoses of a patient's next visit, ask why, try what if",
    "Compare": "set two histories or two models side by side",
    "Recall": "ask the model what a code means, or play against it",
    "Cohort": "score many patients at once",
    "Model Card": "what the model was made from and how good it is",
    "Audit": "judge whether the code tree groups what belongs together",
}
SEXES = {"F": "woman", "M": "man", "U": "person"}
ADULT, COLUMNS = 18, 3


def show_model() -> None:
    """Name, fingerprint and scope of the loaded checkpoint."""
    loaded = engine()
    name, _, fingerprint = loaded.name.rpartition(" ")
    facts = [
        f"**{plain(name)}**, fingerprint `{fingerprint}`",
        f"Ranks {plain(loaded.scope)}",
        *(f"ICD codes: {plain(release)}" for release in loaded.manifest["icd_release"].values()),
    ]
    st.markdown("  \n".join(facts))


def show_demos() -> None:
    """A link to each invented patient; the address holds the id only."""
    for first in range(0, len(demos()), COLUMNS):
        row = list(demos().values())[first : first + COLUMNS]
        for place, (column, demo) in enumerate(zip(st.columns(COLUMNS, gap="medium"), row, strict=False)):
            with column.container(gap="xxsmall", key=f"demo_{first + place}"):
                st.page_link(
                    "pages/1_Predict.py",
                    label=f"**{plain(demo.title)}**",
                    query_params={"demo": demo.id},
                    help=demo.story,
                )
                st.caption(who(demo.patient))


def who(person: Patient) -> str:
    """'woman, 68 · 4 visits'."""
    known = person.age is not None
    name = "child" if known and person.age < ADULT else SEXES[person.sex]
    return f"{name}{f', {person.age:.0f}' if known else ''} · {counted(len(person.visits), 'visit')}"


heading(
    "MERA",
    "MERA reads the diagnosis codes of a patient's earlier visits and ranks the diagnoses of the next one, with a "
    "line below which a code is not predicted. Its language model has memorized the ICD codes, so it knows what each one "
    "means and where it belongs.",
)
start, model = st.columns(2, gap="large")
with start:
    st.subheader("Start", anchor=False)
    for path in page_files():
        name = page_name(path)
        page_link(path, f"**{name}**: {WHAT_FOR[name]}" if name in WHAT_FOR else f"**{name}**")
with model:
    st.subheader("Model", anchor=False)
    show_model()
st.subheader("Demo patients (invented)", anchor=False)
show_demos()
