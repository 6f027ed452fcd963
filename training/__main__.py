"""`python -m training memorize | rank | evaluate | publish`: the command line of training. Parses; the work is elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mera_core.errors import InputError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and evaluate MERA checkpoints.")
Config = Annotated[Path, typer.Option("--config", help="Flat YAML with the run's settings.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the checkpoint that is written.")]


@app.command()
def memorize(
    config: Config, out: Out, seed: Annotated[int | None, typer.Option(help="Overrides the config's.")] = None
):
    """Stage 1: memorize the code book."""
    from training import memorize as stage
    from training.config import MemorizeConfig

    stage.run(MemorizeConfig.load(config, seed=seed), out)
    typer.echo(f"Written: {out}")


@app.command()
def rank(
    config: Config,
    out: Out,
    data: Annotated[str | None, typer.Option(help="Patient records; overrides the config's.")] = None,
    format: Annotated[str | None, typer.Option(help="Their format; overrides the config's.")] = None,
    start: Annotated[str | None, typer.Option(help="Stage-1 folder; overrides the config's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the config's.")] = None,
):
    """Stage 2: rank the next visit's codes."""
    from training import rank as stage
    from training.config import RankConfig

    stage.run(RankConfig.load(config, data=data, format=format, start=start, seed=seed), out)
    typer.echo(f"Written: {out}")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    data: Annotated[str, typer.Option(help="Patient records: a file or folder.")],
    format: Annotated[str, typer.Option(help="Their format.")] = "auto",
    train_data: Annotated[
        str | None,
        typer.Option(help="Records that hold the training patients, to fit the baselines on; --data by default."),
    ] = None,
    part: Annotated[str, typer.Option(help="auto (patients never trained on), test, validation, or all.")] = "auto",
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10)] = 1000,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's cohort rules and figures.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
):
    """Every figure of a checkpoint on patients it never saw, beside the baselines."""
    from training import evaluate as evaluation

    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"There is no folder {out.absolute().parent} to write {out.name} into.")
    result = evaluation.run(checkpoint, data, format, train_data, part, draws, paper)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        evaluation.print_table(result)


@app.command()
def recall(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Exact match of a checkpoint's memory over the whole code book."""
    from mera_core.checkpoint import load_checkpoint
    from mera_core.ontology import Ontology
    from training import memory

    model, manifest = load_checkpoint(checkpoint)
    result = memory.measure(model, Ontology.load(), manifest.systems)
    typer.echo(json.dumps(result, indent=1 if as_json else None, ensure_ascii=False))


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder that `rank` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the published checkpoint.")],
    data: Annotated[str, typer.Option(help="The records it was trained on.")],
    format: Annotated[str, typer.Option(help="Their format.")] = "auto",
    readme: Annotated[Path | None, typer.Option(help="Also put the figures between the markers of this file.")] = None,
):
    """Measure a finished run, write the figures and the model card, and put it in place."""
    from training import publish as publishing

    publishing.run(run, out, data, format, readme)
    typer.echo(f"Written: {out}")


def main() -> None:
    """Run the command; bad input is one sentence on standard error and exit status 2."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
