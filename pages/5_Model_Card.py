"""Model Card: what the loaded checkpoint is, what it was made from, how good it is, and where not to trust it."""

import streamlit as st

from mera_core.checkpoint.model_card import evaluations
from mera_core.figures.memory import chapter_memory
from pages.shared.about import model_card_view as view
from pages.shared.app.session import engine, footer, heading, open_session, or_stop

open_session("Model Card")

heading("Model card", "Everything here is read from the checkpoint's own `mera.json`; what it does not record is said.")
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
view.show_memory(or_stop(lambda: chapter_memory(loaded.manifest)), loaded.ontology)
view.show_facts(loaded, "Trust ingredients", "Resources")
view.download(loaded)
footer()
