"""MERA's home page: what this is, which model is loaded, and the way to the pages. Start with `make app`."""

import streamlit as st

from pages.shared.session import ICONS, NOTICE, demos, engine, open_session, page_files, page_name, plain

open_session("Home")

WHAT_FOR = {
    "Predict": "rank the diagnoses of a patient's next visit",
    "Recall": "ask the model what a code means, and compare with the book",
}
SEXES = {"F": "woman", "M": "man", "U": "person"}
ADULT = 18


def show_model() -> None:
    """Name, fingerprint and scope of the loaded checkpoint."""
    loaded = engine()
    name, _, fingerprint = loaded.name.rpartition(" ")
    facts = [
        f"**{plain(name)}**, fingerprint `{fingerprint}`",
        f"Ranks **{len(loaded.label_space):,} codes**: {plain(loaded.manifest['label_level'])}",
        *(f"Code book: {plain(release)}" for release in loaded.manifest["icd_release"].values()),
    ]
    st.markdown("  \n".join(facts))


def show_demos() -> None:
    """A link to each demo patient; the address holds the id only."""
    columns = st.columns(3, gap="medium")
    for place, demo in enumerate(demos().values()):
        person = demo.patient
        with columns[place % len(columns)].container(gap="xxsmall", key=f"demo_{place}"):
            st.page_link(
                "pages/1_Predict.py",
                label=f"**{plain(demo.title)}**",
                query_params={"demo": demo.id},
                help=demo.story,
            )
            who = SEXES[person.sex] if (person.age or ADULT) >= ADULT else "child"
            age = "" if person.age is None else f", {person.age:.0f}"
            st.caption(f"{who}{age} · {len(person.visits)} visits")


st.title("MERA", anchor=False)
st.markdown(
    "MERA reads the diagnosis codes of a patient's earlier visits and ranks the diagnoses of the next one, with a line "
    "that says where to stop. Its language model has learned the ICD code book by heart, so it knows what each code "
    "means and where it belongs."
)
st.warning(f"**{NOTICE}** The demo patients are invented.", icon=":material/science:")
start, model = st.columns(2, gap="large")
with start:
    st.subheader("Start", anchor=False)
    for path in page_files():
        page = page_name(path)
        label = f"**{page}**: {WHAT_FOR[page]}" if page in WHAT_FOR else f"**{page}**"
        st.page_link(f"pages/{path.name}", label=label, icon=ICONS.get(page, ":material/article:"))
with model:
    st.subheader("Model", anchor=False)
    show_model()
st.subheader("Demo patients", anchor=False)
show_demos()
