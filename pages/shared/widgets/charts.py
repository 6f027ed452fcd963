"""A chart with its text twin: how every page draws a figure."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from mera_core.figures.style import PLOTLY_CONFIG


def draw(figure: go.Figure, key: str, words: str) -> None:
    """A figure; `words` say what it shows to those who don't see it."""
    st.plotly_chart(figure, key=key, config=PLOTLY_CONFIG, alt=f"{figure.layout.title.text}. {words}")


def twin(title: str, table: pd.DataFrame) -> None:
    """The numbers of a chart as a table, folded away."""
    with st.expander(f"The numbers as a table ({title})"):
        show_table(table)


def show_table(rows: pd.DataFrame | list[dict[str, str]]) -> None:
    """A table without an index."""
    st.table(rows, hide_index=True, border="horizontal")
