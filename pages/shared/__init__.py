"""What the pages share. Not listed as pages: Streamlit looks only at the files directly in `pages/`."""
