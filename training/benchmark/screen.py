"""A section's figures as a table on the screen."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(result: dict[str, Any], console: Console | None = None) -> None:
    """Print a section's title and machine, then its rows: what, median, range, runs, the alternative's median, ratio."""
    made = result["machine"]
    memory = f", {made['memory_gb']:g} GB" if made["memory_gb"] else ""
    gpu = f", {made['gpu']}" if made["gpu"] else ", no GPU"
    cores = f"{made['cores']} core" + ("" if made["cores"] == 1 else "s")
    quick = " [small sizes: no evidence]" if result["quick"] else ""
    show = console or Console()
    show.print(Text(f"{result['title']}{quick}", style="bold"))
    show.print(Text(f"{cores}{memory}{gpu}, Python {made['versions']['python']}"))
    rows = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    rows.add_column("what", width=max(22, show.width - 68))  # or the figures would take it all
    for name in ("median", "range", "runs", "beside", "ratio"):
        rows.add_column(name, justify="right", no_wrap=name in ("runs", "ratio"), overflow="fold")
    for row in result["rows"]:
        rows.add_row(*map(Text, cells(row)))
    show.print(rows)


def cells(row: dict[str, Any]) -> list[str]:
    """One row as texts; below what it is stand the alternative and what has no column of its own."""
    known = ("what", "value", "unit", "runs", "lowest", "highest", "against", "against_value", "ratio")
    unit, beside = row["unit"], row.get("against")
    further = ", ".join(f"{name}: {_plain(value)}" for name, value in row.items() if name not in known)
    told = [row["what"], *([f"  beside {beside}"] if beside else []), *([f"  {further}"] if further else [])]
    if row["value"] is None:  # what could not be measured says so in its name
        return ["\n".join(told), "", "", "", "", ""]
    return [
        "\n".join(told),
        f"{row['value']:g} {unit}",
        f"{row['lowest']:g} to {row['highest']:g}",
        str(row["runs"]),
        f"{row['against_value']:g} {unit}" if beside else "",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
    ]


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
