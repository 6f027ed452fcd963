"""Where the app and its samples are: in a checkout, or in the folder that a wheel puts beside the packages."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
APP = _ROOT / "mera_app" if (_ROOT / "mera_app").is_dir() else _ROOT
SAMPLES = APP / "sample_data"
