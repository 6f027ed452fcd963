"""What the tests of families, adapters and plans share: tiny backbones, written once, and a code set of a hundred nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.families import FAMILIES, small_book, write_backbone
from training.memorize import run as memorize


@pytest.fixture
def _small_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: small_book())


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tiny language model of each family."""
    where = tmp_path_factory.mktemp("backbones")
    return {family: write_backbone(where / family, family) for family in FAMILIES}
