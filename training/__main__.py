"""`python -m training memorize | teach | rank | evaluate | publish`: the command line of training. Only parses."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from mera_core.common.errors import InputError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train and evaluate MERA checkpoints.")
Config = Annotated[Path, typer.Option("--config", help="Flat YAML with the run's settings.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write the checkpoint into.")]
Seed = Annotated[int | None, typer.Option(help="Overrides the config's.")]
Checkpoint = Annotated[Path, typer.Option(help="Checkpoint folder.")]
Data = Annotated[str, typer.Option(help="Patient records: a file or folder.")]
Format = Annotated[str, typer.Option(help="Their format.")]
Draws = Annotated[int, typer.Option(help="Bootstrap draws.", min=10)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Only = Annotated[list[str] | None, typer.Option(help="Name of a row to run; can be given again. All by default.")]
Ablations = Annotated[Path, typer.Option("--config", help="Table of ablations: its rows and settings (YAML).")]
Runs = Annotated[Path, typer.Option(help="Folder of `ablate`'s runs; what is finished there is not run again.")]
Seeds = Annotated[str, typer.Option(help="Seeds to run now, with commas; all of the table's by default.")]
ABLATIONS, RUNS, MINI = Path("training/configs/ablate.yaml"), Path("runs/ablate"), Path("sample_data/mera-mini")


@app.command()
def memorize(config: Config, out: Out, seed: Seed = None) -> None:
    """Stage 1: memorize the ICD codes."""
    from training.common.config import MemorizeConfig
    from training.common.trainer import leave_processes
    from training.memorize import run as stage

    stage.run(MemorizeConfig.load(config, seed=seed), out)
    leave_processes()
    typer.echo(f"Written: {out}")


@app.command()
def teach(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder to write what the teacher says into.")],
    data: Data,
    format: Format = "auto",
) -> None:
    """Before stage 2: fit networks that know the whole record, for stage 2 to learn from (its setting `teacher`)."""
    from training.common.config import loaded
    from training.teacher import run as teacher
    from training.teacher.network import TeacherConfig

    about = teacher.run(loaded(TeacherConfig, config), data, format, out)
    typer.echo(f"Written: {out}; new diagnoses of validation patients: {about['validation']}")


@app.command()
def rank(
    config: Config,
    out: Out,
    data: Annotated[str | None, typer.Option(help="Patient records; overrides the config's.")] = None,
    format: Annotated[str | None, typer.Option(help="Their format; overrides the config's.")] = None,
    start: Annotated[str | None, typer.Option(help="Stage-1 folder; overrides the config's.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Folder of `teach`; overrides the config's.")] = None,
    seed: Seed = None,
) -> None:
    """Stage 2: rank the next visit's codes."""
    from training.common.config import RankConfig
    from training.common.trainer import leave_processes
    from training.rank import run as stage

    stage.run(RankConfig.load(config, data=data, format=format, start=start, teacher=teacher, seed=seed), out)
    leave_processes()
    typer.echo(f"Written: {out}")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    format: Format = "auto",
    train_data: Annotated[
        str | None,
        typer.Option(help="Records that hold the training patients, to fit the baselines on; --data by default."),
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="auto, test, validation, train, all, or paper (its own split). auto takes patients never trained on: "
            "everybody, if the format or the codes show that the records come from another source than the training data "
            "(of MIMIC-III and MIMIC-IV, which share patients, only those admitted after 2012); else the test part by the "
            "split rule, also for formats that may hold the training patients (a visits table, MEDS, OMOP, FHIR)."
        ),
    ] = "auto",
    against: Annotated[Path | None, typer.Option(help="Another checkpoint, for paired differences.")] = None,
    draws: Draws = 1000,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's cohort rules and figures.")] = False,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure a checkpoint on patients it never saw, beside the baselines."""
    from training.evaluate import run as evaluation

    if out is not None:
        _file(out)
    result = evaluation.run(checkpoint, data, format, train_data, part, draws, paper, against)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        evaluation.print_table(result)


@app.command()
def baselines(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to compare with; its label space and split are used.")],
    data: Annotated[str, typer.Option(help="Patient records with training, validation and test patients.")],
    format: Format = "auto",
    out: Annotated[
        Path,
        typer.Option(
            help="The table, as JSON. Rows in it are not run again, also for another checkpoint of the same label space. "
            "Each row's draws go into a folder of the same name."
        ),
    ] = Path("docs/evidence/baselines.json"),
    seeds: Annotated[str, typer.Option(help="Seeds of models with random starts.")] = "1,2,3",
    only: Only = None,
    draws: Draws = 1000,
) -> None:
    """Tune, fit and measure every baseline on a checkpoint's split; resumes a stopped run."""
    from training.evaluate import compare_baselines as compare

    table = compare.run(checkpoint, data, format, _file(out), _numbers(seeds), draws, only or ())
    typer.echo(f"{len(table['rows'])} rows in {out}")


@app.command()
def ablate(
    data: Data,
    format: Format = "auto",
    config: Ablations = ABLATIONS,
    runs: Runs = RUNS,
    out: Annotated[Path, typer.Option(help="The table, as JSON.")] = Path("docs/evidence/ablations.json"),
    only: Only = None,
    seeds: Seeds = "",
) -> None:
    """Run the ablation table, one run for each row and seed; resumes a stopped run."""
    from training.ablate import run as ablation

    table = ablation.run(config, data, format, runs, _file(out), only or (), _numbers(seeds))
    done = sum(len(row["seeds"]) for row in table["rows"])
    typer.echo(f"{done} runs of {len(table['rows'])} rows in {out}")


@app.command()
def question(
    number: Annotated[int, typer.Argument(help="Which of the method's open questions: 1 to 4.", min=1, max=4)],
    data: Data,
    format: Format = "auto",
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint that travels (question 4).")] = MINI,
    source: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FORMAT:PATH of records to test on (question 4); can be given again."),
    ] = None,
    config: Ablations = ABLATIONS,
    runs: Runs = RUNS,
    seeds: Seeds = "",
    out: Annotated[Path | None, typer.Option(help="The answer, as JSON.")] = None,
) -> None:
    """Answer an open question of the paper by experiment."""
    from training.ablate.results import write_json
    from training.open_questions import answer

    out = _file(out or Path(f"docs/evidence/question-{number}.json"))
    result = answer(number, data, format, checkpoint, source or (), config, runs, _numbers(seeds))
    write_json(out, result)
    typer.echo(f"Written: {out}")


@app.command()
def report(
    checkpoint: Annotated[Path, typer.Option(help="Published checkpoint.")] = MINI,
    folder: Annotated[Path, typer.Option(help="Folder of the evidence.")] = Path("docs/evidence"),
) -> None:
    """Build the evidence report from the JSON of the experiments."""
    from training.report import run as reporting

    typer.echo(f"Written: {reporting.run(checkpoint, folder)}")


def _file(path: Path) -> Path:
    """A file that can be written; InputError where its folder is missing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"There is no folder {path.absolute().parent} to write {path.name} into.")
    return path


def _numbers(text: str) -> tuple[int, ...]:
    """'1,2,3' -> (1, 2, 3)."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise InputError(f'Seeds are numbers with commas between them, such as 1,2,3, not "{text}".') from error


@app.command()
def recall(
    checkpoint: Checkpoint,
    as_json: AsJson = False,
) -> None:
    """Measure by exact match how many of all ICD codes a checkpoint recalls."""
    from mera_core.checkpoint.folder import load_checkpoint
    from mera_core.icd.ontology import Ontology
    from training.memorize import recall_eval as memory

    model, manifest = load_checkpoint(checkpoint)
    result = memory.measure(model, Ontology.load(), manifest.systems, manifest.knows_equivalents)
    typer.echo(json.dumps(result, indent=1 if as_json else None, ensure_ascii=False))


@app.command()
def benchmark(
    sections: Annotated[str | None, typer.Option(help="Sections, separated by commas; all by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of benchmark-SECTION.json; docs/evidence unless --quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, as a trial; not written as evidence.")] = False,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint that is served.")] = MINI,
    data: Annotated[str | None, typer.Option(help="Patient records, for sections that train on real ones.")] = None,
    format: Format = "auto",
) -> None:
    """Measure time and memory, each figure beside its alternative in the same run."""
    from training import benchmark as benchmarks
    from training.benchmark.rows import line

    names = [name.strip() for name in (sections or "").split(",") if name.strip()]
    if sections is not None and not names:
        raise InputError(f"--sections names none; there are {', '.join(benchmarks.SECTIONS)}.")
    names = names or list(benchmarks.SECTIONS)
    setting = benchmarks.Setting(quick, checkpoint, data, format)
    folder = out or (None if quick else Path("docs/evidence"))
    if folder:
        _file(folder / "benchmark.json")
    for group in [names] if sections else [[name] for name in names]:
        try:
            list(benchmarks.run(group, setting, folder, lambda row: typer.echo(line(row))))
        except InputError as error:
            if sections:
                raise
            typer.echo(f"{group[0]} is left out: {error}", err=True)
    typer.echo(f"Written: {folder}" if folder else "Nothing is written: figures of small sizes are no evidence.")


@app.command("fit-cut")
def fit_cut(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder that ranks.")],
    data: Annotated[str, typer.Option(help="Patient records; their validation part is used.")],
    out: Out,
    format: Format = "auto",
) -> None:
    """Fit a checkpoint's cut-off and probabilities to another population; the network does not change."""
    from mera_core.checkpoint.folder import make_room
    from training.rank import cut

    make_room(out)
    fitted = cut.refit(checkpoint, data, format, out).method["cut"]
    typer.echo(
        f"Written: {out}; weighted F1 of its cut on {fitted['patients']:,} patients: {fitted['weighted_f1']:.3f}"
    )


@app.command()
def plan(
    config: Annotated[
        list[Path], typer.Option("--config", help="Configuration of a run; give stage 1 before its stage 2.")
    ],
    gpu_memory: Annotated[
        float | None, typer.Option(help="GB of one GPU; this machine's first GPU by default.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs that train together (DDP: each holds the whole model).", min=1)] = 1,
    labels: Annotated[
        int | None, typer.Option(help="Codes of the label space; by default every billable code of the systems.")
    ] = None,
    patients: Annotated[int, typer.Option(help="Training patients of two visits or more.")] = 6000,
    visits: Annotated[float, typer.Option(help="Visits a patient, on average.")] = 2.66,
    codes: Annotated[float, typer.Option(help="Codes a visit, on average.")] = 13.06,
    tokens_per_second: Annotated[float | None, typer.Option(help="Throughput of one GPU, to estimate hours.")] = None,
    as_json: AsJson = False,
    as_table: Annotated[bool, typer.Option("--table", help="Print a Markdown table.")] = False,
) -> None:
    """Compute what a run needs (memory by part, steps, tokens, hours) from its configuration, without loading weights."""
    from training.plan import run as planning

    cohort = planning.CohortSize(labels, patients, visits, codes)
    machine = planning.Machine.of(gpu_memory, gpus, tokens_per_second)
    plans = planning.make_all(config, cohort, machine)
    if as_json:
        typer.echo(json.dumps([made.to_json() for made in plans], indent=1))
    elif as_table:
        typer.echo(planning.table(plans))
    else:
        typer.echo("\n\n".join(planning.in_words(made) for made in plans))


@app.command()
def merge(
    adapters: Annotated[Path, typer.Argument(help="Folder written by a run with tuning lora or qlora.")],
    out: Out,
    base: Annotated[str | None, typer.Option(help="The base model, if it has been moved since training.")] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the weights: bfloat16, float16 or float32.")] = "bfloat16",
) -> None:
    """Merge adapters into their base model: a complete checkpoint for the engine and the app."""
    from training.release import export as exporting

    exporting.merge(adapters, out, base, dtype)
    typer.echo(f"Written: {out}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the plain language model.")],
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the weights: bfloat16, float16 or float32; as they are by default.")
    ] = None,
) -> None:
    """Write a checkpoint's language model as a plain Hugging Face folder."""
    from training.release import export as exporting

    exporting.export(checkpoint, out, dtype)
    typer.echo(f"Written: {out}")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder written by `rank` or `memorize`.")],
    out: Annotated[Path, typer.Argument(help="Folder of the published checkpoint.")],
    data: Annotated[str, typer.Option(help="The records it was trained on; none for a run of `memorize`.")] = "",
    format: Format = "auto",
    readme: Annotated[
        Path | None, typer.Option(help="Also write the figures between the markers of this file.")
    ] = None,
    baselines: Annotated[
        Path | None,
        typer.Option(help="Table that `baselines` wrote beside this run, to show its tuned rows.", exists=True),
    ] = None,
) -> None:
    """Measure a finished run, write the figures and the model card, and put it in place."""
    from training.release import publish as publishing

    publishing.run(run, out, data, format, readme, baselines)
    typer.echo(f"Written: {out}")


def main() -> None:
    """Run the command; bad input is one sentence on standard error and exit status 2."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        status = app(standalone_mode=False)  # or typer would draw a box around what is wrong with an option
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except TyperException as error:
        if message := error.format_message():  # without a command the help has been printed, and that is all
            print(f"{message.rstrip('.')}.", file=sys.stderr)
        raise SystemExit(2) from None
    except typer.Abort:
        raise SystemExit(130) from None
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
