"""Many sessions of the app at once, by Streamlit's own protocol: `python -m tests.load --sessions 50 --minutes 5`."""
