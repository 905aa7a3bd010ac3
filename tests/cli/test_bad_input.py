"""Bad input that has to be played: what a machine lacks or refuses. The rest: `tests/bad_input`."""

import errno
from pathlib import Path

import pytest

from loratlas.study.lock import LOCK_NAME
from loratlas.study.store import NEW_NAME


def test_a_device_that_is_not_there(refused, study_folder, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = study_folder / "study.yaml"
    file.write_text(f"{file.read_text()}device: cuda\n")
    found = refused("run", file, "--out", study_folder / "run")
    assert found.startswith("device cuda: not available here; there is: ")
    assert not (study_folder / "run").exists()


@pytest.mark.parametrize("where", ["mkdir", "iterdir"])
def test_a_run_folder_that_may_not_be_used(refused, study_folder, monkeypatch, where):
    """The superuser may do everything, so the refusal of the system is played."""

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    out = study_folder / "run"
    if where == "iterdir":
        out.mkdir()
    monkeypatch.setattr(Path, where, refuse)
    assert refused("run", study_folder / "study.yaml", "--out", out).endswith(": Permission denied")


def test_what_a_kill_leaves_behind_is_no_obstacle(study_folder):
    """Killed before it had a store, a run leaves its lock and a store in the making."""
    from loratlas.study.folder import check_folder

    out = study_folder / "run"
    out.mkdir()
    (out / LOCK_NAME).touch()
    (out / NEW_NAME).write_bytes(b"half")
    check_folder(out)
