"""Recall: what the model knows of the code book by heart, beside what the book says."""

import html

import streamlit as st

from mera_core.figures import chapter_colour, chapter_name, percent
from mera_core.ontology import SYSTEM_NAMES, Code
from pages.shared.code_search import code_search
from pages.shared.session import engine, footer, open_session, or_stop, plain

open_session("Recall")

DIRECTIONS = {"code": "From a code to its definition", "definition": "From a definition to its code"}
EXAMPLES = (Code("ICD9", "428.0"), Code("ICD9", "250.40"), Code("ICD9", "571.2"))
VERDICTS = {
    True: (":material/check_circle:", "Right: word for word as in the book.", "Right: the code of the book."),
    False: (":material/cancel:", "Wrong: not what the book says.", "Wrong: the book has another code."),
    None: (
        ":material/help:",
        "The book has no such entry.",
        "No entry of the book is worded so: nothing to compare.",
    ),
}


def ask_code(code: Code) -> None:
    st.session_state["asked_code"] = code


def ask_words(words: str) -> None:
    st.session_state["definition_words"] = words


def panel(title: str, text: str, note: str, colour: str) -> None:
    """An answer with the colour of its chapter."""
    st.markdown(f"**{title}**")
    st.html(
        f'<div class="mera-answer" style="border-color:{colour}">{html.escape(text)}'
        f"<small>{html.escape(note)}</small></div>"
    )


def show(recall, direction: str) -> None:
    """The model's answer beside the book's, the verdict in words, and the alternatives."""
    icon, of_code, of_definition = VERDICTS[recall.exact]
    verdict = of_code if direction == "code" else of_definition
    {True: st.success, False: st.error, None: st.info}[recall.exact](verdict, icon=icon)
    model, book = st.columns(2, gap="medium")
    with model:
        first = recall.alternatives[0] if recall.alternatives else None
        note = chapter_name(first[0]) if first and direction == "definition" else "as the model says it"
        colour = chapter_colour(first[0]) if first else "#7f7f7f"
        panel("The model's memory", recall.answer or "(no answer)", note, colour)
    with book:
        panel("The book", recall.truth or "(no such entry)", "ICD tables of this app", "#7f7f7f")
    if recall.alternatives:
        lead = (
            "Codes that the model's answer leads back to"
            if direction == "code"
            else "The model's five likeliest codes"
        )
        st.markdown(f"**{lead}**")
        rows = [
            {
                "Code": code.code,
                "Book": SYSTEM_NAMES[code.system],
                "Definition": definition,
                "Share": percent(share),
            }
            for code, definition, share in recall.alternatives
        ]
        st.table(rows, hide_index=True, border="horizontal")
        st.caption(
            "Share: how the model's answer spreads over all codes it knows; all shares add up to 100 %."
        )


st.title("Recall the code book", anchor=False)
st.markdown(
    "The answer comes from the model's memory alone; the book's text stands beside it for comparison."
)
direction = st.segmented_control(
    "Ask", list(DIRECTIONS), default="code", format_func=DIRECTIONS.get, key="direction", required=True,
    persist_state="session",
)  # fmt: skip
loaded = engine()
if direction == "code":
    code_search(
        "recall",
        "Find a code",
        ask_code,
        system=loaded.manifest["systems"][0] if len(loaded.manifest["systems"]) == 1 else None,
    )
    with st.container(horizontal=True):
        for code in EXAMPLES:
            st.button(code.code, key=f"example_{code}", on_click=ask_code, args=(code,))
    asked = st.session_state.get("asked_code")
    if asked:
        st.subheader(f"What does {SYSTEM_NAMES[asked.system]} {asked.code} mean?", anchor=False)
        show(or_stop(lambda: loaded.recall(code=asked.code, system=asked.system)), "code")
    else:
        st.info("Find a code above, or take one of the examples.", icon=":material/arrow_upward:")
else:
    words = st.text_input(
        "Definition", key="definition_words", placeholder="e.g. Congestive heart failure, unspecified", max_chars=500,
        persist_state="session",
    )  # fmt: skip
    with st.container(horizontal=True):
        for code in EXAMPLES:
            text = loaded.ontology.definition(code)
            st.button(plain(text), key=f"example_words_{code}", on_click=ask_words, args=(text,))
    if words and words.strip():
        show(or_stop(lambda: loaded.recall(definition=words)), "definition")
    else:
        st.info(
            "Type a definition above and press Enter, or take one of the examples.",
            icon=":material/arrow_upward:",
        )
footer()
