"""The screens. Streamlit lists each numbered file as a page; what they share is in `pages.shared`."""
