"""A scored cohort as MEDS label and prediction tables in one ZIP archive.

Boundary: results in, bytes out; runs no model, and leaves no file behind. What the tables hold: `writers.predictions`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.writers.predictions import HEART_FAILURE, Sample, Task, write_predictions

TASKS = (HEART_FAILURE,)
WATCHED = tuple(code for task in TASKS for code in task.codes)  # to be given to a `CohortScoring` as its `watch`


def has_dates(scoring: CohortScoring) -> bool:
    """Whether any history scored ends on a date, which a MEDS prediction needs."""
    return any(one.history.visits[-1].time is not None for one in scoring.scored)


def meds_archive(scoring: CohortScoring, tasks: Sequence[Task] = TASKS) -> bytes:
    """The folder that `write_predictions` makes, as a ZIP.

    Raises InputError where no visit was held out, no history is dated, or a task has codes that were not watched.
    """
    samples = [Sample(one.history, one.target.codes, one.watched) for one in scoring.scored if one.target is not None]
    if not samples:
        raise InputError("There are no held-out visits, and MEDS tables need true labels.")
    unwatched = {code for task in tasks for code in task.codes} - set(scoring.watch)
    if unwatched:
        raise InputError(f"The scoring did not watch {', '.join(sorted(map(str, unwatched)))}.")
    with tempfile.TemporaryDirectory(prefix="mera-meds-") as folder:
        root = Path(folder)
        write_predictions(samples, root / "predictions", tasks)
        return Path(shutil.make_archive(str(root / "packed"), "zip", root / "predictions")).read_bytes()
