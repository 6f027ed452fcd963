"""Recall: what the model knows of the code book by heart, beside what the book says."""

import streamlit as st

from mera_core.ontology import SYSTEM_NAMES, Code
from pages.shared.code_search import code_search
from pages.shared.recall_view import show_recall
from pages.shared.session import engine, footer, open_session, or_stop, plain

open_session("Recall")

DIRECTIONS = {"code": "Code → definition", "definition": "Definition → code"}
EXAMPLES = (Code("ICD9", "428.0"), Code("ICD9", "250.40"), Code("ICD9", "571.2"))


def ask_code(code: Code) -> None:
    """Keep the code that is asked about; it outlives a change of page."""
    st.session_state["asked_code"] = code


def ask_words(words: str) -> None:
    """Put a definition into the field."""
    st.session_state["definition_words"] = words


def from_code() -> None:
    """Ask for the definition of a code."""
    systems = loaded.manifest["systems"]
    code_search("recall", "Find a code", ask_code, system=systems[0] if len(systems) == 1 else None)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("For example", width="content")
        for code in EXAMPLES:
            st.button(code.code, key=f"example_{code}", on_click=ask_code, args=(code,))
    asked = st.session_state.get("asked_code")
    if asked is None:
        st.info("Find a code above, or take one of the examples.", icon=":material/arrow_upward:")
        return
    st.subheader(f"What does {SYSTEM_NAMES[asked.system]} {asked.code} mean?", anchor=False)
    show_recall(or_stop(lambda: loaded.recall(code=asked.code, system=asked.system)), asked_code=True)


def from_definition() -> None:
    """Ask for the code of a definition."""
    words = st.text_input(
        "Definition",
        key="definition_words",
        placeholder="e.g. Congestive heart failure, unspecified",
        persist_state="session",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("For example", width="content")
        for code in EXAMPLES:
            text = loaded.ontology.definition(code)
            st.button(plain(text), key=f"example_words_{code}", on_click=ask_words, args=(text,))
    if not words or not words.strip():
        st.info("Type a definition and press Enter, or take one of the examples.", icon=":material/arrow_upward:")
        return
    st.subheader("Which code is that?", anchor=False)
    show_recall(or_stop(lambda: loaded.recall(definition=words)), asked_code=False)


st.title("Recall the code book", anchor=False)
st.markdown("The answer comes from the model's memory alone; the book's text stands beside it for comparison.")
loaded = engine()
direction = st.segmented_control(
    "Direction",
    list(DIRECTIONS),
    default="code",
    format_func=DIRECTIONS.get,
    key="direction",
    required=True,
    persist_state="session",
)
if direction == "code":
    from_code()
else:
    from_definition()
footer()
