"""An evaluation's JSON as tables on the screen, and figures that JSON can hold. Measures nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mera_core.common.formatting import with_interval
from mera_core.evaluation.bootstrap import Estimate

PLAIN = ("size_mean", "slope")  # figures that are no shares: shown as they are, not times 100


def without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that is not defined becomes null."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    if isinstance(value, Estimate):
        return without_nan(value.to_dict())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def shown(figure: dict[str, float | None], name: str = "") -> str:
    """A figure with its interval, times 100 unless its name says that it is no share."""
    return with_interval(figure, 1 if name.endswith(PLAIN) else 100)


def print_table(result: dict[str, Any]) -> None:
    """A readable account on the screen."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{result['checkpoint']}: {result['patients']} patients, {result['data']['patients']}; {result['mode']} mode. "
        f"{result['notice']}"
    )
    table = Table("figure", "value x 100 (95 % interval)")
    for group in ("new_only", "metrics", "recurrent", "new_onset"):
        for name, figure in result[group].items():
            table.add_row(name if group == "metrics" else f"{group}: {name}", shown(figure, name))
    if result.get("unlike_training"):
        table.add_row("histories unlike those of training", shown(result["unlike_training"]))
    for name in ("all", "without_history"):
        if event := result["heart_failure"].get(name):
            cases = f"heart failure, {name.replace('_', ' ')} ({event['cases']} of {event['n']})"
            for key in ("auroc", "auprc", "f1_at_0.5"):
                table.add_row(f"{cases}: {key}", shown(event[key]))
    console.print(table)
    console.print(f"ECE is of {result['ece_of']}.")
    table = Table("figure", "default order", "order f1", "order f1 minus default")
    for group, difference in (("new_only", "new_only_minus_default"), ("metrics", "minus_default")):
        for name, minus in result["f1_order"][difference].items():
            both = (shown(of[group][name], name) for of in (result, result["f1_order"]))
            table.add_row(name if group == "metrics" else f"{group}: {name}", *both, shown(minus, name))
    console.print(table)
    console.print(f"Order f1: {result['f1_order']['order']}.")
    if result["cuts"]:
        table = Table("cut", "weighted F1", "codes a patient", "learned cut minus this")
        table.add_row(
            "learned",
            shown(result["cuts"]["learned"]),
            shown(result["metrics"]["cut_size_mean"], "size_mean"),
            "",
        )
        for row in result["cuts"]["others"]:
            size = shown(row["size_mean"], "size_mean")
            table.add_row(row["cut"], shown(row["weighted_f1"]), size, shown(row["learned_minus_this"]))
        console.print(table)
    rivals = [*result["baselines"], *([result["against"]] if "against" in result else [])]
    for prefix, own, difference in (
        ("new_only: ", "new_only", "new_only_ours_minus_this"),
        ("", "metrics", "ours_minus_this"),
    ):
        if not rivals:
            break
        compared = list(rivals[0][difference])
        titles = [prefix + name for name in compared]
        table = Table("model", *titles, *(f"ours minus it: {title}" for title in titles))
        for row in rivals:
            theirs = [shown(row[own][name], name) for name in compared if name in row[own]]
            minus = [shown(row[difference][name], name) for name in compared if name in row[difference]]
            pad = [""] * (len(compared) - len(theirs))
            table.add_row(row["name"], *theirs, *pad, *minus)
        console.print(table)
    if not result["baselines"]:
        console.print("No baselines: " + result["baselines_absent"] + ".")
    if result.get("subgroups"):
        names = ("recall@20", "weighted_f1_cut", "cut_size_mean")
        table = Table("subgroup", "n", *names)
        for row in result["subgroups"]:
            table.add_row(row["name"], str(row["n"]), *(shown(row["metrics"][name], name) for name in names))
        console.print(table)
