"""References between FHIR resources: from what a resource writes to the resource that is meant.

Boundary: names and rows of lists; knows nothing of what resources say. A reference may be relative (Patient/1), absolute
(https://server/fhir/Patient/1), with a version, a urn:uuid of the same Bundle, a contained resource (#p1) or an identifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Index:
    """Names -> rows of one kind of resource. A Bundle's own resources are meant before those of another Bundle."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._everywhere: dict[str, int] = {}
        self._within: dict[tuple[str, str], int] = {}

    def add(self, row: int, names: Iterable[str], bundle: str | None) -> None:
        """Name a row; in the whole source the first so named is meant, within a Bundle the last."""
        for name in names:
            self._everywhere.setdefault(name, row)
            if bundle is not None:
                self._within[bundle, name] = row

    def find(self, reference: str, bundle: str | None) -> int | None:
        """The row that a reference means, None where there is none."""
        if not reference:
            return None
        for name in spellings(reference, self._kind):
            row = self._within.get((bundle, name)) if bundle is not None else None
            row = self._everywhere.get(name) if row is None else row
            if row is not None:
                return row
        return None


def spellings(reference: str, kind: str) -> Iterator[str]:
    """The names under which the resource that is meant may be known.

    >>> list(spellings("https://x.org/fhir/Patient/7/_history/2", "Patient"))
    ['https://x.org/fhir/Patient/7', 'Patient/7']
    """
    plain = reference.split("/_history/", 1)[0]
    yield plain
    if plain.startswith(("urn:uuid:", "urn:oid:")):
        yield f"{kind}/{plain.split(':', 2)[2]}"
    elif "?" in plain:  # a conditional reference: Patient?identifier=system|value
        yield plain.split("=", 1)[-1]
    else:
        parts = plain.rsplit("/", 2)
        if len(parts) == 3 and parts[1] == kind:
            yield f"{kind}/{parts[2]}"


def told_name(reference: str, kind: str) -> str:
    """The shortest name of a resource that is only referred to."""
    return list(spellings(reference, kind))[-1].removeprefix(f"{kind}/")
