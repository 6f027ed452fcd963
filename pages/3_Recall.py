"""Recall: what the model knows of the code book by heart, beside what the book says."""

import streamlit as st

from mera_core.figures.memory import chapter_memory
from mera_core.icd.ontology import SYSTEM_NAMES, Code
from pages.shared.about.quiz_view import show_quiz
from pages.shared.about.recall_view import show_ancestors, show_memory, show_recall
from pages.shared.app.session import engine, footer, heading, open_session, or_stop, plain
from pages.shared.editor.code_search import code_search

open_session("Recall")

QUESTIONS = {
    "code": "Code → definition",
    "definition": "Definition → code",
    "chapters": "How well each chapter is remembered",
    "quiz": "Quiz",
}
ASKING = "Asking the model …"
EQUIVALENCE = {
    True: "Right: the CMS equivalence maps give this code.",
    False: "Wrong: the CMS equivalence maps give another code.",
    None: "The CMS equivalence maps give no single code for it: the model's nearest, neither right nor wrong.",
}
EXAMPLES = {"ICD9": ("428.0", "250.40", "571.2"), "ICD10": ("I50.9", "E11.21", "K70.30")}


def examples() -> list[Code]:
    """Codes to begin with, of the first book that the model has memorized."""
    system = loaded.manifest["systems"][0]
    return [Code(system, code) for code in EXAMPLES[system]]


def ask_code(code: Code) -> None:
    """Keep the code that is asked about; it outlives a change of page."""
    st.session_state["asked_code"] = code


def ask_words(words: str) -> None:
    """Put a definition into the field."""
    st.session_state["definition_words"] = words


def from_code() -> None:
    """Ask for the definition of a code."""
    systems = loaded.manifest["systems"]
    only = systems[0] if len(systems) == 1 and not loaded.knows_equivalents else None
    code_search("recall", "Find a code", ask_code, system=only, why_only="This model has memorized {} only.")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("For example", width="content")
        for code in examples():
            st.button(code.code, key=f"example_{code}", on_click=ask_code, args=(code,))
    asked = st.session_state.get("asked_code")
    if asked is None:
        st.info("Find a code above, or take one of the examples.", icon=":material/arrow_upward:")
        return
    if loaded.knows_equivalents and asked.system not in systems:
        other_book(asked)
        return
    st.subheader(f"What does {SYSTEM_NAMES[asked.system]} {asked.code} mean?", anchor=False)
    with st.spinner(ASKING):
        answer = or_stop(lambda: loaded.recall(code=asked.code, system=asked.system))
        above = loaded.recall_ancestors(asked)
    show_recall(answer, asked_code=True)
    if above:
        show_ancestors(asked, above, loaded.ontology)


def other_book(asked: Code) -> None:
    """Ask which code of the model's own book stands for one of the other book."""
    own = SYSTEM_NAMES[loaded.manifest["systems"][0]]
    st.subheader(f"Which {own} code stands for {SYSTEM_NAMES[asked.system]} {asked.code}?", anchor=False)
    st.markdown(plain(loaded.ontology.definition(asked)))
    with st.spinner(ASKING):
        answer = or_stop(lambda: loaded.recall_equivalent(asked))
    show_recall(answer, asked_code=False, verdicts=EQUIVALENCE)


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
        for code in examples():
            text = loaded.ontology.definition(code)
            st.button(plain(text), key=f"example_words_{code}", on_click=ask_words, args=(text,))
    if not words or not words.strip():
        st.info("Type a definition and press Enter, or take one of the examples.", icon=":material/arrow_upward:")
        return
    st.subheader("Which code is that?", anchor=False)
    with st.spinner(ASKING):
        answer = or_stop(lambda: loaded.recall(definition=words))
    show_recall(answer, asked_code=False)


heading(
    "Recall the code book",
    "The answer comes from the model's memory alone; the book's text stands beside it for comparison.",
)
loaded = engine()
question = st.segmented_control(
    "Question",
    list(QUESTIONS),
    default="code",
    format_func=QUESTIONS.get,
    key="direction",
    required=True,
    label_visibility="collapsed",
    persist_state="session",
)
if question == "code":
    from_code()
elif question == "definition":
    from_definition()
elif question == "chapters":
    show_memory(or_stop(lambda: chapter_memory(loaded.manifest)), loaded.ontology)
else:
    show_quiz()
footer()
