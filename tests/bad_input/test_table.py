"""Does the command line answer every bad input as it should? In this process, the short way."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest

from bad_input.case import Case
from bad_input.table import cases
from bad_input.verdict import Outcome, faults, listing
from bad_input.world import lay_out
from loratlas.placement import patterns

BRIEF = [
    (family, case)
    for family, case in cases()
    if not (case.alone or case.finished or case.unprivileged)
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Where a case is laid out; an expression that would take for ever is given up soon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 1.0)
    return tmp_path / "case"


def outcome_of(case: Case, folder: Path) -> Outcome:
    """Ask in this process."""
    from loratlas.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    before = listing(folder)
    with (
        case.beside(folder),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main(case.asked)
    return Outcome(
        code=int(end.value.code or 0),
        out=out.getvalue(),
        err=err.getvalue(),
        before=before,
        after=listing(folder),
    )


@pytest.mark.parametrize(
    "case", [case for _, case in BRIEF], ids=[f"{family}: {case.name}" for family, case in BRIEF]
)
def test_bad_input_is_answered(case, world, here):
    lay_out(world, here, case)
    outcome = outcome_of(case, here)
    assert faults(case, outcome) == [], outcome.err[-2000:]
    shutil.rmtree(here)


def test_every_case_has_a_name_of_its_own():
    names = [f"{family}: {case.name}" for family, case in cases()]
    assert len(names) == len(set(names)) >= 60


def test_whatever_succeeds_says_why():
    assert [case.name for _, case in cases() if (case.code == 0) != bool(case.why)] == []
