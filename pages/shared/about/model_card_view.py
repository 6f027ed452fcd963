"""A model card on the screen: facts, limits, figures with intervals and charts, each beside its place in the manifest."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from mera_core.checkpoint import model_card
from mera_core.common.formatting import percent
from mera_core.figures import model_card as card_figures
from pages.shared.app.markdown import plain
from pages.shared.widgets.charts import draw, show_table, twin
from pages.shared.widgets.controls import File, choose
from pages.shared.widgets.controls import download as download_files

if TYPE_CHECKING:
    from mera_core.engine import Engine

Result = Mapping[str, Any]
_CURVES = {  # key in a result -> whose pairs, for the title, and the name of the table that goes with it
    "reliability": ("all codes", "calibration of all codes"),
    "reliability_frequent": ("codes with 50 cases or more", "calibration of frequent codes"),
}


def show_facts(loaded: Engine, *titles: str) -> None:
    """Sections of facts, each with where in the manifest it stands."""
    every = model_card.sections(loaded.manifest, loaded.name)
    for title in titles:
        st.subheader(title, anchor=False)
        st.html(f'<dl class="mera-facts">{"".join(_fact_html(fact) for fact in every[title])}</dl>')


def _fact_html(fact: model_card.Fact) -> str:
    name, value = html.escape(fact.name), html.escape(fact.value)
    if not fact.recorded:
        return f'<dt>{name}</dt><dd class="absent">{value}</dd>'
    return f"<dt>{name}</dt><dd>{value}<small>{html.escape(fact.source)}</small></dd>"


def show_limits(manifest: Mapping[str, Any]) -> None:
    """Known limits, those worked out from the figures included."""
    st.subheader("Warnings: known risks and limits", anchor=False)
    st.markdown("\n".join(f"- {plain(line)}" for line in model_card.limits(manifest)))


def choose_result(results: Mapping[str, Result], manifest: Mapping[str, Any]) -> Result | None:
    """One of the evaluations that the manifest holds; None where it holds none."""
    if not results:
        return None
    st.subheader("Key metrics", anchor=False)
    name = next(iter(results))
    if len(results) > 1:
        name = choose("Measured on", list(results), "card_result")
    result = results[name]
    st.caption(plain(model_card.measured_on(manifest, result)))
    return result


def show_usefulness(result: Result) -> None:
    """Recall, F1 and the predicted codes; beside the baselines; heart failure."""
    st.markdown("**Usefulness, usability and efficacy**")
    show_table(model_card.main_figures(result))
    if result.get("auprc_of"):
        st.caption(f"AUPRC is taken of {plain(str(result['auprc_of']))}.")
    baselines = model_card.baseline_figures(result)
    if baselines.empty:
        st.caption("The manifest holds no baselines for this part.")
    else:
        st.markdown("Beside baselines fitted on the same training patients; differences are paired, in points")
        show_table(baselines)
    event = model_card.event_figures(result)
    if not event.empty:
        st.markdown("Heart failure at the next visit")
        show_table(event)


def show_fairness(result: Result) -> None:
    """A figure by group of patients with intervals."""
    st.markdown("**Fairness and equity**")
    groups = result.get("subgroups") or []
    names = [
        name for name in ("recall@20", "recall@10", "weighted_f1_cut") if any(name in g["metrics"] for g in groups)
    ]
    if not names:
        st.caption("The manifest holds no subgroups for this part.")
        return
    name = choose("Figure by group", {each: model_card.figure_name(each) for each in names}, "card_group_figure")
    values = {group["name"]: group["metrics"][name]["value"] for group in groups if name in group["metrics"]}
    known = {group: value for group, value in values.items() if value is not None}
    words = "No group has a defined value."
    if known:
        low, high = min(known, key=known.get), max(known, key=known.get)
        words = f"Lowest: {low}, {percent(known[low])}; highest: {high}, {percent(known[high])}."
    draw(card_figures.subgroup_intervals(groups, name, result["metrics"].get(name)), "card_groups", words)
    table = [
        {
            "group": group["name"],
            "patients": f"{group['n']:,}",
            model_card.figure_name(name): model_card.interval(name, value),
        }
        for group in groups
        if (value := group["metrics"].get(name))
    ]
    twin("groups of patients", pd.DataFrame(table))


def show_reliability(result: Result, manifest: Mapping[str, Any]) -> None:
    """Calibration: the curves that the manifest holds."""
    st.markdown("**Safety and reliability**")
    if words := model_card.calibration_words(manifest):
        st.caption(f"Probabilities come from {plain(words)}, whom the model was not trained on.")
    else:
        st.caption("The manifest holds no calibration, so the app shows no probability of a diagnosis.")
    curves = {key: curve for key in _CURVES if (curve := result.get(key))}
    if not curves:
        st.caption("The manifest holds no calibration curve for this part.")
        return
    if result.get("ece_of"):
        st.caption(f"What is measured: {plain(str(result['ece_of']))}.")
    for key, curve in curves.items():
        _show_curve(curve, f"card_{key}", *_CURVES[key])


def _show_curve(curve: Sequence[Mapping[str, float]], key: str, of: str, twin_name: str) -> None:
    off = max(curve, key=lambda point: abs(point["predicted"] - point["observed"]))
    words = f"Farthest apart: {percent(off['predicted'])} given, {percent(off['observed'])} came true, in {int(off['n']):,} pairs."
    draw(card_figures.reliability_curve(curve, of), key, words)
    rows = [
        {"pairs": f"{int(p['n']):,}", "probability given": percent(p["predicted"]), "came true": percent(p["observed"])}
        for p in curve
    ]
    twin(twin_name, pd.DataFrame(rows))


def download(loaded: Engine) -> None:
    """The manifest itself."""
    manifest = File(
        "The manifest (mera.json)",
        "json",
        "application/json",
        lambda: json.dumps(loaded.manifest, indent=2, default=str),
        icon="data_object",
    )
    download_files("mera", [manifest], "card")
