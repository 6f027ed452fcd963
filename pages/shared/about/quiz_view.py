"""The quiz: ten random codes, the reader choosing among four definitions, the model writing its own from memory."""

from __future__ import annotations

import html
import random
from dataclasses import dataclass, field

import streamlit as st

from mera_core.audit.quiz import QUESTIONS, Question, draw_quiz
from mera_core.icd.chapters import chapter_colour, chapter_name
from mera_core.icd.ontology import SYSTEM_NAMES
from pages.shared.about.recall_view import diff_html, show_answer
from pages.shared.app.engines import engine, or_stop
from pages.shared.app.markdown import plain
from pages.shared.widgets.charts import show_table
from pages.shared.widgets.controls import button


@dataclass
class Quiz:
    """A quiz under way. model: its definition of each code; chosen: the reader's places, one an answered question."""

    questions: list[Question]
    model: list[str] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    seen: int = 0  # questions whose answer was read

    @property
    def yours(self) -> int:
        return sum(picked == asked.right for picked, asked in zip(self.chosen, self.questions, strict=False))

    @property
    def models(self) -> int:
        """How many of the answered questions the model had to the letter."""
        told = zip(self.model[: len(self.chosen)], self.questions, strict=False)
        return sum(answer == asked.options[asked.right] for answer, asked in told)


def show_quiz() -> None:
    """The quiz from its start button to its result. A new one is drawn at random."""
    quiz: Quiz | None = st.session_state.get("quiz")
    if quiz is None:
        st.markdown(
            f"{QUESTIONS} random codes. You choose the definition among four; the model gets no choice and has to write it "
            "down from memory, word for word."
        )
        button("Start the quiz", "quiz_start", "quiz", _start, type="primary")
        return
    if not quiz.model:
        with st.spinner("The model writes down its answers …"):
            codes = [each.code for each in quiz.questions]
            quiz.model = or_stop(lambda: engine().recall_definitions(codes))
    if quiz.seen >= len(quiz.questions):
        _show_result(quiz)
        return
    asked = quiz.questions[quiz.seen]
    st.progress(quiz.seen / len(quiz.questions), text=f"Question {quiz.seen + 1} of {len(quiz.questions)}")
    st.subheader(f"What does {SYSTEM_NAMES[asked.code.system]} {asked.code.code} mean?", anchor=False)
    if len(quiz.chosen) == quiz.seen:
        picked = st.radio(
            "Definition", range(len(asked.options)), format_func=lambda place: plain(asked.options[place]), index=None,
            key=f"quiz_{quiz.seen}",
        )  # fmt: skip
        button(
            "Answer",
            "quiz_answer",
            "",
            lambda: quiz.chosen.append(st.session_state[f"quiz_{quiz.seen}"]),
            type="primary",
            disabled=picked is None,
        )
    else:
        _show_answer(quiz, asked)
        last = quiz.seen + 1 == len(quiz.questions)
        button("See the result" if last else "Next code", "quiz_next", "", _next, type="primary")
    if quiz.chosen:
        st.caption(f"So far: you {quiz.yours}, the model {quiz.models}, of {len(quiz.chosen)}.")


def _start() -> None:
    loaded = engine()
    questions = draw_quiz(loaded.ontology, loaded.manifest["systems"], random.randrange(2**32))
    st.session_state["quiz"] = Quiz(questions)


def _next() -> None:
    st.session_state["quiz"].seen += 1


def _show_answer(quiz: Quiz, asked: Question) -> None:
    truth, own = asked.options[asked.right], asked.options[quiz.chosen[quiz.seen]]
    if own == truth:
        st.success("You are right.", icon=":material/check_circle:")
    else:
        st.error(f"You chose: {plain(own)}", icon=":material/cancel:")
    answer = quiz.model[quiz.seen]
    verdict = "right, word for word" if answer == truth else "not the official text"
    colour = chapter_colour(asked.code)
    show_answer(html.escape(truth), f"Official text · {chapter_name(asked.code)}", colour)
    show_answer(diff_html(answer, truth), f"The model's answer: {verdict}", colour)


def _show_result(quiz: Quiz) -> None:
    size = len(quiz.questions)
    st.subheader(f"You {quiz.yours}, the model {quiz.models}, of {size}", anchor=False)
    st.caption(
        "You chose among four definitions; the model had to write its own. By guessing alone one gets a quarter."
    )
    rows = []
    for each, picked, answer in zip(quiz.questions, quiz.chosen, quiz.model, strict=True):
        said = {"You": each.options[picked], "The model": answer or "no answer"}
        truth = each.options[each.right]
        marked = {who: "right" if text == truth else text for who, text in said.items()}
        rows.append({"Code": each.code.code, "Official text": truth, **marked})
    show_table(rows)
    button("Another quiz", "quiz_again", "quiz", _start, type="primary")
