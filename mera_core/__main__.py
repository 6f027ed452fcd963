"""The command line: mera rank | recall | lookup | convert | score | app, or python -m mera_core.

Gathers arguments, calls the library, prints. Whatever the user can mend ends with exit status 2 and one plain
sentence on standard error. The model's libraries are imported only by the commands that need a model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from mera_core.common.bundled import APP
from mera_core.common.errors import InputError
from mera_core.common.faults import describe_system_error
from mera_core.common.formatting import counted

BAD_INPUT = 2
INTERRUPTED = 130
TOKENS_A_ROW = 128  # a forward pass of `score` holds so many tokens for each history of --batch-size

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Checkpoint folder. Default: the bundled one.")]
Quantize = Annotated[
    str | None, typer.Option(help="nf4 (4-bit weights), int8 or bf16. Default: bf16 on a GPU, float32 on a CPU.")
]
Options = Annotated[list[str] | None, typer.Option(help="NAME=VALUE: an option of the format. Repeatable.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(help="OURS=THEIRS: names a column of your table; code=DIAG* for numbered ones. Repeatable."),
]
System = Annotated[str | None, typer.Option(help="Code system: ICD9 or ICD10.")]


@app.callback()
def _about() -> None:
    """MERA: rank the diagnoses of a patient's next visit (research use, not for clinical decisions)."""


@app.command()
def rank(
    history: Annotated[str, typer.Argument(metavar="HISTORY.json", help="File, or - for standard input.")],
    top: Annotated[int, typer.Option(help="How many codes to print, best first.", min=1)] = 20,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
    quantize: Quantize = None,
    order: Annotated[
        str, typer.Option(help="probability: likeliest first. f1: a list made for weighted F1, which helps rare codes.")
    ] = "probability",
) -> None:
    """Rank the codes of one patient's next visit."""
    from mera_core.history.records import resolve
    from mera_core.icd.ontology import Ontology
    from mera_core.ranking.ranking import ORDERS

    if order not in ORDERS:
        raise InputError(f'--order is "{order}"; it can be {" or ".join(ORDERS)}.')
    patient = _read_history(history)
    resolve(patient, Ontology.load(), strict=True)  # a wrong code is told before a model is loaded
    engine = _engine(checkpoint, quantize)
    result = engine.rank(patient, order).to_json(top) | {"trained_on": engine.trained_on}
    if as_json:
        _print_json(result)
        return
    rows = [
        [
            str(row["rank"]),
            row["system"],
            row["code"],
            row["definition"],
            f"{row['score']:.2f}",
            f"{row['share']:.1%}",
            "predicted" if row["above_cut"] else "below the cut-off",
            "seen before" if row["recurrent"] else "new",
        ]
        for row in result["ranking"]
    ]
    _print_table(["", "system", "code", "definition", "score", "share", "", ""], rows)
    print(f"Ordered {ORDERS[order]}." if order == "probability" else f"This is {ORDERS[order]}.")
    print(f"Predicted, above the cut-off: {counted(result['predicted'], 'code')}; checkpoint {result['checkpoint']}.")
    for note in result["notes"]:
        print(f"note: {note['message'] if isinstance(note, dict) else note}")
    if result["trained_on"]:
        print(f"The model learned from {result['trained_on']}.")
    print(result["notice"])


@app.command()
def recall(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="Ask for the definition of a code.")] = None,
    definition: Annotated[str | None, typer.Option(help="Ask for the code of a definition.")] = None,
    system: System = None,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
    quantize: Quantize = None,
) -> None:
    """Test what the model memorized: code to definition, or definition to code.

    A checkpoint that memorized the equivalence maps translates a code of the other system into its own.
    """
    from mera_core.icd.ontology import Ontology

    if (code is None) == (definition is None):
        raise InputError("give either a code or --definition TEXT.")
    if definition is not None and not definition.strip():
        raise InputError("the definition is empty.")
    if code is not None:
        asked = Ontology.load().parse(code, system=system)
        engine = _engine(checkpoint, quantize)
        if engine.knows_equivalents and asked.system not in engine.manifest["systems"]:
            found = engine.recall_equivalent(asked)
        else:
            found = engine.recall(code=asked.code, system=asked.system)
    else:
        found = _engine(checkpoint, quantize).recall(definition=definition)
    result = found.to_json()
    if as_json:
        _print_json(result)
        return
    verdict = {True: "right", False: "wrong", None: "not in the ICD code set, so neither right nor wrong"}
    print(f"question: {result['question']}")
    print(f"answer:   {result['answer']} ({verdict[result['exact']]})")
    print(f"official: {result['truth']}")
    rows = [[a["system"], a["code"], a["definition"], f"{a['share']:.1%}"] for a in result["alternatives"]]
    if rows:
        _print_table(["system", "code", "definition", "share"], rows)
    print(result["notice"])


@app.command()
def lookup(
    query: Annotated[str, typer.Argument(help="A code, dotted or not, or words of a definition.")],
    system: System = None,
    limit: Annotated[int, typer.Option(help="How many to print.", min=1, max=1000)] = 20,
    billable: Annotated[bool, typer.Option("--billable", help="Only billable codes.")] = False,
    as_json: Json = False,
) -> None:
    """Search the ICD codes by code or by words."""
    from mera_core.icd.ontology import SYSTEMS
    from mera_core.icd.search import search

    if not query.strip():
        raise InputError("the query is empty.")
    if system is not None and system not in SYSTEMS:
        raise InputError(f"--system must be {' or '.join(SYSTEMS)}, not {system!r}.")
    found: list[dict[str, Any]] = [
        {
            "system": match.code.system,
            "code": match.code.code,
            "definition": match.definition,
            "billable": match.billable,
        }
        for match in search(query, system=system, limit=limit, billable_only=billable)
    ]
    if as_json:
        _print_json(found)
    elif found:
        rows = [[row["system"], row["code"], row["definition"], "" if row["billable"] else "heading"] for row in found]
        _print_table(["system", "code", "definition", ""], rows)
    else:
        print("nothing found.")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file or a folder, plain or gzipped.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Output: a visits table (.parquet, .csv, .jsonl), or see --to. Without it: counts only."),
    ] = None,
    format: Annotated[str, typer.Option(help="Name of the source's format, or auto.")] = "auto",
    as_json: Json = False,
    report: Annotated[Path | None, typer.Option(help="Also write the import report to this file, as JSON.")] = None,
    rules: Annotated[
        str | None, typer.Option(help="Cohort rules: honest, honest-icd9, honest-icd10, paper-mimic3 or paper-mimic4.")
    ] = None,
    to: Annotated[str, typer.Option(help="visits, meds (a folder) or fhir (.json, .ndjson or a folder).")] = "visits",
    option: Options = None,
    column: Columns = None,
) -> None:
    """Convert records of any known format to the visits table, MEDS or FHIR, and report what was left out and why."""
    from mera_core.cohort.convert import Job, run
    from mera_core.common.progress import shown

    job = Job(source, out, format, report, rules, to, _pairs(option, "--option"), _pairs(column, "--column"))
    with shown(sys.stderr) as progress:
        result = run(job, progress)
    _print_result(result, as_json)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="Many patients: a file or a folder, plain or gzipped.")],
    out: Annotated[Path, typer.Option(help="Output: .parquet or .csv.")],
    format: Annotated[str, typer.Option(help="Name of the source's format, or auto.")] = "auto",
    top: Annotated[int, typer.Option(help="Codes a patient; all predicted codes if they are more.", min=1)] = 20,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Predict each last visit from earlier ones, and add what came true.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray (needs requirements-ray.txt).")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Number of processes. Default: one a core, or one with a GPU.", min=1)
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, or auto. Default: this machine.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Histories in a forward pass.", min=1)] = 64,
    part: Annotated[int, typer.Option(help="Patients in a part, which is saved and resumed as a whole.", min=1)] = 4096,
    quantize: Quantize = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard a stopped run and begin again.")] = False,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
    option: Options = None,
    column: Columns = None,
) -> None:
    """Rank the next visit of many patients. The same command resumes a stopped run."""
    from mera_core import scoring
    from mera_core.common.progress import shown

    settings = scoring.Settings(
        top=top,
        hold_out=hold_out,
        part=part,
        rows=batch_size,
        tokens=batch_size * TOKENS_A_ROW,
        quantize=quantize,
    )
    job = scoring.Job(
        source, out, settings, format, checkpoint, engine, workers or scoring.usable_workers(), address, restart,
        _pairs(option, "--option"), _pairs(column, "--column"),
    )  # fmt: skip
    try:
        with shown(sys.stderr) as progress:
            result = scoring.run(job, progress)
    except KeyboardInterrupt:
        print("what was scored is kept: the same command goes on from here.", file=sys.stderr)
        raise
    _print_result(result, as_json)


@app.command("app")
def start_app(port: Annotated[int, typer.Option(help="Where it answers.", min=1, max=65_535)] = 8501) -> None:
    """Start the web app, for this machine only."""
    print(f"MERA answers at http://127.0.0.1:{port} once it has started; Ctrl+C stops it.", flush=True)
    options = {"address": "127.0.0.1", "port": str(port), "headless": "true"}
    server = [word for name, value in options.items() for word in (f"--server.{name}", value)]
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(APP / "app.py"), *server])


def _pairs(given: Sequence[str] | None, name: str) -> dict[str, str]:
    """NAME=VALUE arguments as a mapping."""
    pairs: dict[str, str] = {}
    for key, _, value in (text.partition("=") for text in given or ()):
        if key in pairs:
            raise InputError(f"{name} names {key!r} twice.")
        pairs[key] = value
    if any(not key or not value for key, value in pairs.items()):
        raise InputError(f"{name} must be NAME=VALUE.")
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    try:
        name = "mera" if Path(sys.argv[0]).name == "mera" else "python -m mera_core"
        status = app(args=arguments, prog_name=name, standalone_mode=False)
        if status == INTERRUPTED:  # typer turns the interruption into a status and gives it back
            raise KeyboardInterrupt
    except (InputError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        print(_one_sentence(message), file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (MemoryError, OSError, RuntimeError) as error:  # what the machine lacks, not what we did wrong
        message = describe_system_error(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return BAD_INPUT
    return 0


def _read_history(name: str) -> Any:
    """The patient of a HISTORY.json file, or of standard input for '-'."""
    from mera_core.common.limits import current_limits
    from mera_core.history.records import parse_json, patient_from_json

    path, most = Path(name), current_limits().history_bytes
    shown = "standard input" if name == "-" else name
    if name != "-" and path.is_dir():
        raise InputError(f"{shown} is a folder, not a HISTORY.json file.")
    try:
        if name == "-":
            content = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:
                content = file.read(most + 1)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {shown}.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{shown} can't be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(content) > most:
        raise InputError(f"{shown} is larger than {most:,} bytes, too large for one history.")
    if not content.strip():
        raise InputError(f"{shown} is empty.")
    try:
        return patient_from_json(parse_json(content, shown))
    except InputError as error:
        message = str(error)
        raise error if message.startswith(shown) else InputError(f"{shown}: {message}") from error


def _engine(checkpoint: Path | None, quantize: str | None) -> Any:
    from mera_core.engine import Engine

    return Engine.load(checkpoint, quantize)


def _print_result(result: Any, as_json: bool) -> None:
    """What a conversion or a scoring came to."""
    _print_json(result.to_dict()) if as_json else print("\n".join(result.lines()))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in header:
        table.add_column(name, no_wrap=name != "definition")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _one_sentence(message: str) -> str:
    sentence = " ".join(message.split())
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


if __name__ == "__main__":
    sys.exit(main())
