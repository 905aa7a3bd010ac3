"""A token that a library puts into its message is in nothing that is kept, shown or sent."""

import logging
from contextlib import closing

import pytest

from loratlas.cli.main import main
from loratlas.cli.output import complain
from loratlas.cli.progress import TerminalListener
from loratlas.study.folder import open_run
from loratlas.study.records import TrialRecord
from loratlas.study.run import _logged_to
from loratlas.study.store import FILE_NAME
from loratlas.study.tracking.stored import tracked_trial

SECRET = "s3cr3t-of-a-person"
LEAK = f"GET https://me:{SECRET}@hub/x?token=abc refused {SECRET} and hf_abcdefghijklmnop"
LEFT = "GET https://***@hub/x?token=*** refused *** and ***"


@pytest.fixture(autouse=True)
def secret_of_a_person(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)


@pytest.fixture
def leaking(make):
    """A run whose trial failed with a secret in its error."""
    return make(status="failed", error=LEAK, adapter=None)


def test_the_store_does_not_keep_it(leaking):
    assert SECRET.encode() not in (leaking / FILE_NAME).read_bytes()
    with closing(open_run(leaking)) as store:
        assert store.trials()["t"].error == LEFT


def test_what_an_earlier_version_kept_is_not_shown(leaking, capsys):
    for arguments in (["status", str(leaking)], ["status", str(leaking), "--json"]):
        with pytest.raises(SystemExit):
            main(arguments)
        said = capsys.readouterr().out
        assert LEFT in said
        assert SECRET not in said


def test_trackers_are_not_told(leaking):
    with closing(open_run(leaking)) as store:
        [record] = store.trials().values()
        told = tracked_trial(store, record, study="tiny", model="m", run="r")
    assert told.settings["error"] == LEFT


def test_the_terminal_does_not_show_it(capsys):
    complain(LEAK)
    with TerminalListener() as listener:
        listener.say(LEAK)
    assert capsys.readouterr() == ("", f"loratlas: {LEFT}\n{LEFT}\n")


def test_an_error_that_names_nothing_stays():
    record = TrialRecord(
        digest="t",
        placement_digest="p",
        learning_rate=1e-3,
        seed=0,
        status="failed",
        engine="packed",
        error="diverged: the training loss is nan at step 2 of 3",
    )
    assert record.error == "diverged: the training loss is nan at step 2 of 3"


def test_the_log_of_a_run_does_not_keep_it(tmp_path):
    with _logged_to(tmp_path / "run.log"):
        try:
            raise OSError(f"{LEAK}\x1b[2J")
        except OSError:
            logging.getLogger("loratlas.study").exception("trial %s failed", "t")
    log = (tmp_path / "run.log").read_text()
    assert log.endswith(f"OSError: {LEFT}\\x1b[2J\n")
    assert "Traceback" in log
