"""Model Card: what the loaded checkpoint is, what it was made from, how good it is, and where not to trust it."""

import streamlit as st

from mera_core.checkpoint.model_card import evaluations
from mera_core.figures.memory import chapter_memory
from pages.shared.about import model_card_view as view
from pages.shared.about.recall_view import show_memory
from pages.shared.app.engines import engine, or_stop
from pages.shared.app.layout import footer, heading, open_session

open_session("Model Card")

heading(
    "Model card",
    "Everything here is read from the model's own `mera.json`; what that file does not record is marked so.",
)
loaded = engine()
results = evaluations(loaded.manifest)
view.show_facts(loaded, "Basic information", "Release", "Summary", "Uses and directions")
view.show_limits(loaded.manifest)
chosen = view.choose_result(results, loaded.manifest)
if chosen is not None:
    view.show_usefulness(chosen)
    view.show_fairness(chosen)
    view.show_reliability(chosen, loaded.manifest)
else:
    st.info("The manifest holds no figure measured on patients.", icon=":material/info:")
st.subheader("Recall of ICD codes", anchor=False)
show_memory(or_stop(lambda: chapter_memory(loaded.manifest)), loaded.ontology)
view.show_facts(loaded, "Trust ingredients", "Resources")
view.download(loaded)
footer()
