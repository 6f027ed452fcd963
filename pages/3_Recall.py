"""Recall: what the model knows of the ICD codes without looking them up, beside the official text."""

import streamlit as st

from mera_core.figures.memory import chapter_memory
from mera_core.icd.ontology import SYSTEM_NAMES, Code
from pages.shared.about.quiz_view import show_quiz
from pages.shared.about.recall_view import show_ancestors, show_memory, show_recall
from pages.shared.app.engines import engine, or_stop
from pages.shared.app.layout import footer, heading, open_session
from pages.shared.app.markdown import plain
from pages.shared.editor.code_search import code_search
from pages.shared.widgets.controls import button, choose

open_session("Recall")

QUESTIONS = {
    "code": "Code → definition",
    "definition": "Definition → code",
    "chapters": "Recall by chapter",
    "quiz": "Quiz",
}
ASKING = "Asking the model …"
EQUIVALENCE = {
    True: "Right: the CMS equivalence maps give this code.",
    False: "Wrong: the CMS equivalence maps give another code.",
    None: "The CMS equivalence maps give no single code for it: the model's nearest, neither right nor wrong.",
}
EXAMPLES = {"ICD9": ("428.0", "250.40", "571.2"), "ICD10": ("I50.9", "E11.21", "K70.30")}


def show_examples(field: str) -> None:
    """Codes of the model's first code system, or their definitions, as buttons; a click puts one into the session's `field`."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("For example", width="content")
        for code in (Code(systems[0], text) for text in EXAMPLES[systems[0]]):
            value = code if field == "asked_code" else loaded.ontology.definition(code)
            label = code.code if field == "asked_code" else plain(value)
            button(label, f"example_{field}_{code}", "", st.session_state.update, {field: value})


def from_code() -> None:
    """Ask for the definition of a code."""
    only = systems[0] if len(systems) == 1 and not loaded.knows_equivalents else None
    code_search(
        "recall",
        "Find a code",
        lambda code: st.session_state.update(asked_code=code),  # it outlives a change of page
        system=only,
        why_only="This model has memorized {} only.",
    )
    show_examples("asked_code")
    asked = st.session_state.get("asked_code")
    if asked is None:
        st.info("Find a code above, or take one of the examples.", icon=":material/arrow_upward:")
        return
    if loaded.knows_equivalents and asked.system not in systems:
        other_system(asked)
        return
    st.subheader(f"What does {SYSTEM_NAMES[asked.system]} {asked.code} mean?", anchor=False)
    with st.spinner(ASKING):
        answer = or_stop(lambda: loaded.recall(code=asked.code, system=asked.system))
        above = loaded.recall_ancestors(asked)
    show_recall(answer, asked_code=True)
    if above:
        show_ancestors(asked, above, loaded.ontology)


def other_system(asked: Code) -> None:
    """Ask which code of the model's own code system stands for one of the other."""
    st.subheader(
        f"Which {SYSTEM_NAMES[systems[0]]} code stands for {SYSTEM_NAMES[asked.system]} {asked.code}?", anchor=False
    )
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
    show_examples("definition_words")
    if not words or not words.strip():
        st.info("Type a definition and press Enter, or take one of the examples.", icon=":material/arrow_upward:")
        return
    st.subheader("Which code is that?", anchor=False)
    with st.spinner(ASKING):
        answer = or_stop(lambda: loaded.recall(definition=words))
    show_recall(answer, asked_code=False)


heading(
    "Recall of ICD codes",
    "The model answers without looking anything up; the official ICD text stands beside its answer.",
)
loaded = engine()
systems = loaded.manifest["systems"]
question = choose("Question", QUESTIONS, "direction", label_visibility="collapsed")
if question == "code":
    from_code()
elif question == "definition":
    from_definition()
elif question == "chapters":
    show_memory(or_stop(lambda: chapter_memory(loaded.manifest)), loaded.ontology)
else:
    show_quiz()
footer()
