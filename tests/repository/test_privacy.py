"""A session with a patient who stands nowhere else: no trace of them in logs, addresses, on disk, and no connection to anybody.

The session runs in a process of its own, without a network where this machine allows that (`unshare`), with every logger at its
most talkative and every folder it could write to its own. That a browser leaves no trace: tests/browser/test_privacy_browser.py.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mera_core.common.errors import InputError
from pages.shared.app import private_process

ROOT = Path(__file__).resolve().parents[2]
ID, WORD, CODE = "Zyqx-Wibble-77", "zyqxophilia", "V91.07XD"
TRACES = (ID.lower(), "wibble", WORD, "v91.07x", "v9107x", "quorbish")

SESSION = f"""
import json, logging, socket, sys, threading
logging.basicConfig(level=logging.DEBUG, filename=sys.argv[1], force=True)
reached = []
def watched(real):
    def call(*given, **more):
        if not isinstance(given[0], socket.socket) or given[0].family in (socket.AF_INET, socket.AF_INET6):
            reached.append(repr(given))
        return real(*given, **more)
    return call
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, watched(getattr(socket.socket, name)))
socket.getaddrinfo = watched(socket.getaddrinfo)

from tests.pages.apps import open_page, press
for logger in list(logging.root.manager.loggerDict.values()):
    if isinstance(logger, logging.Logger):
        logger.setLevel(logging.DEBUG)
        logger.propagate = True

HISTORY = json.dumps({{"id": "{ID}", "sex": "F", "age": 61, "details": {{"ethnicity": "quorbish"}},
                      "visits": [{{"codes": ["{CODE}", "{WORD}", "428.0"]}}, {{"codes": ["401.9"]}}]}})
TABLE = "patient_id,visit,system,code\\n{ID},0,ICD10,{CODE}\\n{ID},1,ICD9,428.0\\n{ID}-2,0,ICD9,401.9\\n"
BROKEN = "patient_id,visit,system,code\\n{ID},first,ICD10,{CODE}\\n"
urls = []

def sent(app, key, name, text):
    field = next(each for each in app.file_uploader if each.key.startswith(key))
    field.set_value([(name, text.encode(), "text/csv")]).run()

def over(app):
    assert not app.exception, [each.value for each in app.exception]
    urls.append(dict(app.query_params))

app = open_page("1_Predict.py")
sent(app, "history_files", "wibble.json", HISTORY)
assert app.session_state["history"].now.patient.id == "{ID}"
app.text_area(key="paste_text").set_value("{CODE}; {WORD}").run()
press(app, "paste_button")
app.text_input(key="add_query").set_value("{WORD}").run()
sent(app, "history_files", "wibble.csv", BROKEN)
assert any("first" in error.value or "number" in error.value for error in app.error), app.error
over(app)
kept = app.session_state["history"]
print("ranked", len(app.get("html")), flush=True)

for file in ("2_Compare.py", "3_Recall.py", "5_Model_Card.py", "6_Audit.py"):
    app = open_page(file, history=kept)
    if file.startswith("3"):
        app.segmented_control(key="direction").set_value("definition").run()
        app.text_input(key="definition_words").set_value("{WORD}").run()
    over(app)

app = open_page("4_Cohort.py")
sent(app, "cohort_files", "wibble.csv", TABLE)
press(app, "cohort_score")
assert app.session_state["scoring"].scored
over(app)

# an error that nobody foresaw, with the patient in its words: in the script and in a thread
def broken(*_, **__):
    raise ValueError("no room for {ID} with {CODE} and {WORD}")
import mera_core.engine
mera_core.engine.Engine.rank = broken
try:
    open_page("1_Predict.py", history=kept)
    sys.exit("no error was shown")
except AssertionError:
    pass
thread = threading.Thread(target=broken)
thread.start(); thread.join()

print("urls", urls, flush=True)
print("reached", reached, flush=True)
"""


def without_a_network(command: list[str]) -> list[str]:
    """The command in a network of its own, which has nobody in it, where this machine allows that."""
    allowed = shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
    return ["unshare", "-rn", *command] if allowed else command


def test_a_whole_session_leaves_no_trace_of_its_patient(tmp_path):
    began = time.time()
    homes = {name: tmp_path / name.lower() for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR")}
    for folder in homes.values():
        folder.mkdir()
    environment = os.environ | {name: str(folder) for name, folder in homes.items()}
    log = tmp_path / "debug.log"
    command = without_a_network([sys.executable, "-c", SESSION, str(log)])
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    said = dict(
        line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("urls ", "reached ", "ranked "))
    )
    assert said["reached"] == "[]"  # no connection was so much as tried
    assert set(said["urls"]) <= set("[{}, ]")  # six pages, no parameter on any
    texts = {"debug log": log.read_text(errors="replace"), "stderr": done.stderr, "stdout": done.stdout}
    assert len(texts["debug log"]) > 1_000 and "its words left out" in texts["debug log"] + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != log]
    written += [path for path in ROOT.rglob("*") if _is_new(path, began)]
    texts |= {str(path): path.name + path.read_bytes().decode("latin-1") for path in written}
    found = {(where, trace) for where, text in texts.items() for trace in TRACES if trace in text.lower()}
    assert found == set()
    assert not [path for path in homes["TMPDIR"].rglob("*") if path.is_file()]


def _is_new(path: Path, began: float) -> bool:
    """Whether a file of the repository was written during the session; sources and others' tools aside."""
    if {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", "tests"} & set(
        path.parts
    ):
        return False
    return path.is_file() and path.stat().st_mtime >= began and path.suffix not in {".py", ".md"}


# --- what the process does of its own accord

SPOOL = """
import asyncio, sys
from starlette.formparsers import MultiPartParser
from starlette.datastructures import Headers
if sys.argv[1] == "private":
    from pages.shared.app.private_process import keep_private
    keep_private()
async def body():
    yield b'--x\\r\\nContent-Disposition: form-data; name="f"; filename="a.csv"\\r\\n\\r\\n'
    for _ in range(3):
        yield b"1" * 1_000_000
    yield b"\\r\\n--x--\\r\\n"
headers = Headers({"content-type": "multipart/form-data; boundary=x"})
form = asyncio.run(MultiPartParser(headers, body()).parse())
print(form["f"].file._rolled)
"""


@pytest.mark.parametrize(("how", "spooled"), [("as it comes", "True"), ("private", "False")])
def test_an_upload_is_not_spooled_to_disk(how, spooled):
    done = subprocess.run([sys.executable, "-c", SPOOL, how], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == spooled, done.stderr


@pytest.fixture
def private(monkeypatch) -> Iterator[None]:
    """The process as `keep_private` leaves it although a limit can't be read, whatever ran before."""
    before, hook, nobody = logging.getLogRecordFactory(), threading.excepthook, sys.unraisablehook
    logging.setLogRecordFactory(logging.LogRecord)
    private_process._without_words.cache_clear()
    with warnings.catch_warnings(), monkeypatch.context() as environment:
        environment.setenv("MERA_LIMIT_UPLOADBYTES", "5")
        for _ in range(2):  # not only the first time
            with pytest.raises(InputError, match="MERA_LIMIT_UPLOADBYTES"):
                private_process.keep_private()
        yield
    logging.setLogRecordFactory(before)
    threading.excepthook, sys.unraisablehook = hook, nobody


def test_an_error_in_a_log_keeps_its_kind_and_place_and_loses_its_words(private, caplog):
    log = logging.getLogger("anyone")
    try:
        try:
            int(WORD)
        except ValueError as error:
            raise RuntimeError(f"patient {ID}") from error
    except RuntimeError:
        log.exception("It failed")
    assert "It failed" in caplog.text and 'test_privacy.py", line' in caplog.text
    assert "RuntimeError, its words left out" in caplog.text and "ValueError, its words left out" in caplog.text
    log.error("It failed for %s: %s", "a page", ValueError(f"patient {ID}"))
    log.error("So did %(error)r", {"error": ValueError(ID)})
    assert "It failed for a page: ValueError" in caplog.text and "So did ValueError" in caplog.text
    assert not [trace for trace in TRACES if trace in caplog.text.lower()]


def test_an_error_of_a_task_loses_its_words_as_well(private, caplog):
    async def lost() -> None:
        async def broken() -> None:
            raise ValueError(ID)

        task = asyncio.ensure_future(broken())
        await asyncio.sleep(0)
        del task

    def in_a_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(lost())
        loop.call_exception_handler({"message": "lost", "exception": ValueError(ID)})
        loop.close()

    with ThreadPoolExecutor(1) as thread:  # the browser tests of the same process may leave a loop running in this one
        thread.submit(in_a_loop).result()
    assert "lost" in caplog.text and "its words left out" in caplog.text and ID not in caplog.text


def test_what_python_says_of_its_own_accord_loses_its_words(private, capsys):
    """Of a library's warning, an error that ends a thread, and one that nobody can catch."""

    class Broken:
        def __del__(self):
            raise KeyError(ID)

    def broken() -> None:
        raise ValueError(ID)

    warnings.simplefilter("always")
    warnings.warn(f"could not read {ID}", UserWarning, stacklevel=1)
    Broken()
    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    told = capsys.readouterr().err
    assert "UserWarning, its words left out" in told and "KeyError" in told and "ValueError" in told
    assert told.count("test_privacy.py") == 3 and ID.lower() not in told.lower()


# --- what the source shows


def nodes(*kinds: type) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of these kinds in the source of the app, with its file."""
    for path in [ROOT / "app.py", *(p for part in ("mera_core", "pages") for p in (ROOT / part).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield path, node


def test_only_a_demo_and_a_model_are_written_to_an_address():
    written = set()
    for path, node in nodes(ast.Subscript, ast.keyword):
        if isinstance(node, ast.Subscript):
            written |= {ast.literal_eval(node.slice)} if "query_params" in ast.unparse(node.value) else set()
        elif node.arg == "query_params":
            written |= {ast.literal_eval(key) for key in node.value.keys}
        assert not (isinstance(node, ast.keyword) and node.arg == "bind"), f"{path}: a widget bound to the address"
    assert written == {"demo", "model"}


def test_what_is_shared_between_users_is_made_of_no_patient():
    """The caches of Streamlit that all sessions share hold the engine, and nothing is cached on disk."""
    shared = {
        node.name: {argument.arg for argument in node.args.args}
        for _, node in nodes(ast.FunctionDef)
        for words in map(ast.unparse, node.decorator_list)
        if "st.cache_" in words and "scope='session'" not in words
    }
    assert "_load" in shared
    patients = {"patient", "person", "history", "patients", "cohort", "codes", "text", "content", "visits"}
    assert not set().union(*shared.values()) & patients, shared
    assert not [path for path, node in nodes(ast.keyword) if node.arg == "persist"]


def test_nothing_prints_or_logs_but_the_command_line_and_the_progress_of_it():
    printing = {
        p.name for p, node in nodes(ast.Call) if ast.unparse(node.func) in ("print", "st.write", "logging.info")
    }
    assert printing <= {"__main__.py", "progress.py", "private_process.py"}


def test_nothing_of_ours_opens_a_connection():
    forbidden = {"requests", "urllib", "http", "httpx", "socket", "aiohttp", "ftplib", "smtplib"}
    for path, node in nodes(ast.Import, ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        assert not {name.split(".")[0] for name in names} & forbidden, path


def test_files_that_are_laid_down_for_reading_are_private_and_gone_afterwards(tmp_path, monkeypatch):
    from pages.shared.widgets import upload
    from tests.uploads import Sent

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []

    def read(path, *_):
        modes.extend(each.stat().st_mode & 0o077 for each in [*tmp_path.iterdir()])
        raise InputError("refused")

    monkeypatch.setattr(upload, "read", read)
    with pytest.raises(InputError):
        upload.read_uploads([Sent("wibble.csv", json.dumps([ID]))])
    assert modes == [0] and list(tmp_path.iterdir()) == []
