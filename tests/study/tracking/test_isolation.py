"""A tracker that fails, hangs, or dies costs one sentence; no trial, and no exit code."""

import json
import os
import time
from pathlib import Path

import pytest

from loratlas.cli.main import main
from loratlas.study import run as run_module
from loratlas.study.folder import open_run
from loratlas.study.standing import standing
from loratlas.study.store import Store
from loratlas.study.tracking import mirror as mirror_module
from loratlas.study.tracking.marks import add_mark, read_marks
from loratlas.study.tracking.mirror import Mirror
from loratlas.train.outcome import Probe

from .conftest import Said, filled_store, tracked_study

SECRET = "s3cr3t-of-a-person"
# Packages that stand in for the real ones, each with a fault of its own.
RAISES = f"""
class Settings:
    def __init__(self, **_): pass
def init(**_):
    print("noise that must not be taken for an answer")
    raise ConnectionError("https://me:{SECRET}@example.org refused the key {SECRET}\\nsecond line")
"""
DIES = "import os\nos._exit(3)"
HANGS = "import subprocess, time\nsubprocess.run(['sleep', '600'])"
# Stands in for a tracker that works: it keeps every run in a file.
WORKS = """
import json, os
class Run:
    def __init__(self, **kept): self.kept = kept
    def log(self, figures, step): self.kept.setdefault("logs", []).append([step, figures])
    def finish(self):
        with open(os.environ["TRACKIO_DIR"] + "/kept.jsonl", "a") as file:
            file.write(json.dumps(self.kept) + chr(10))
class Api:
    def runs(self, project): raise ValueError("no project")
def init(project, *, embed, auto_log_cpu, auto_log_gpu, **kept): return Run(**kept)
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Returns a function that puts a package in the place of a real one."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(name: str, code: str) -> None:
        (folder / f"{name}.py").write_text(code)

    return put


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch):
    found = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: found)


def kept_by_trackio(folder: Path) -> list[dict]:
    lines = (folder / "tracking" / "trackio" / "kept.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def command(study: Path, run: Path, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["run", str(study), "--out", str(run)])
    return end.value.code or 0, " ".join(capsys.readouterr().err.split())


def test_faulty_trackers_cost_a_sentence_each(study_folder, packages, monkeypatch, capsys):
    monkeypatch.setattr(mirror_module, "LIMIT_S", 5.0)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    packages("wandb", RAISES)
    packages("mlflow", DIES)
    packages("trackio", HANGS)
    study, run = study_folder / "study.yaml", study_folder / "run"
    study.write_text(study.read_text() + "track: [wandb, mlflow, trackio]\n")

    code, said = command(study, run, capsys)

    assert code == 0
    end = "no result is touched by it, and the next run tries again"
    assert (
        "wandb: 4 of 4 trials were not mirrored: ConnectionError: "
        f"https://***@example.org refused the key *** second line; {end}"
    ) in said
    assert (
        f"mlflow: 4 of 4 trials were not mirrored: its process ended with exit status 3; {end}"
    ) in said
    assert f"trackio: 4 of 4 trials were not mirrored: no answer within 5 seconds; {end}" in said
    log = (run / "run.log").read_text()
    # Three failures in a row, one death, one that hung; after each the tracker is left alone.
    assert [log.count(f"WARNING loratlas.study.tracking.courier: {n}: ") for n in TRIED] == [
        3,
        1,
        1,
    ]
    assert SECRET not in said + log
    store = open_run(run)
    assert standing(store)["complete"]
    losses = {t.digest: t.losses for t in store.trials().values()}
    store.close()

    packages("trackio", WORKS)
    study.write_text(study.read_text().replace("[wandb, mlflow, trackio]", "[trackio]"))
    code, said = command(study, run, capsys)
    assert code == 0
    assert "mirrored" not in said
    kept = kept_by_trackio(run)
    assert {k["config"]["trial"]: [f["train/loss"] for _, f in k["logs"][:-1]] for k in kept} == (
        losses
    )


TRIED = ("wandb", "mlflow", "trackio")


def test_a_trial_does_not_wait_for_its_mirror(tmp_path, packages, monkeypatch):
    monkeypatch.setattr(mirror_module, "LIMIT_S", 60.0)
    monkeypatch.setattr(mirror_module, "LAST_WAIT_S", 1.0)
    monkeypatch.setattr(mirror_module, "_UNSPOKEN_WAIT_S", 0.1)
    packages("trackio", HANGS)
    store, said = filled_store(tmp_path / "run"), Said()
    with Mirror(tracked_study("trackio"), store, tmp_path / "run", said) as mirror:
        began = time.monotonic()
        mirror.add(store.trials().values())
        assert time.monotonic() - began < 5
    assert time.monotonic() - began < 30
    assert said.lines == [
        "waiting for trackio",
        "trackio: 2 of 2 trials were not mirrored: not all were sent within 1 seconds; "
        "no result is touched by it, and the next run tries again",
    ]
    store.close()


def break_off(store: Store, folder: Path) -> None:
    """Mirror, and press Ctrl-C once the tracker's package is at work."""
    with Mirror(tracked_study("trackio"), store, folder / "run", Said()) as mirror:
        mirror.add(store.trials().values())
        until = time.monotonic() + 20
        while not (folder / "pid").is_file() or not (folder / "pid").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_a_broken_off_run_ends_what_a_tracker_started(tmp_path, packages):
    packages(
        "trackio",
        f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{HANGS}",
    )
    store = filled_store(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        break_off(store, tmp_path)
    store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_one_trial_that_a_tracker_refuses_does_not_hold_up_the_others(tmp_path, packages):
    refusing = WORKS.replace(
        "**kept): return", "**kept):\n    assert kept['config']['status'] == 'done'\n    return"
    )
    packages("trackio", refusing)
    store, said = filled_store(tmp_path / "run"), Said()
    for code in (refusing, WORKS):
        packages("trackio", code)
        with Mirror(tracked_study("trackio"), store, tmp_path / "run", said) as mirror:
            mirror.add(store.trials().values())
    store.close()
    assert [line.split(":")[:2] for line in said.lines] == [
        ["trackio", " 1 of 2 trials were not mirrored"]
    ]
    kept = [run["config"]["status"] for run in kept_by_trackio(tmp_path / "run")]
    assert kept == ["done", "diverged"]


def test_the_environment_of_a_person_wins(tmp_path, packages, monkeypatch):
    packages("trackio", WORKS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TRACKIO_DIR", str(elsewhere))
    store = filled_store(tmp_path / "run")
    with Mirror(tracked_study("trackio"), store, tmp_path / "run", Said()) as mirror:
        mirror.add(store.trials().values())
    store.close()
    assert len((elsewhere / "kept.jsonl").read_text().splitlines()) == 2
    assert len(read_marks(tmp_path / "run" / "tracking" / "trackio")) == 2


def test_a_study_without_trackers_leaves_no_trace(tmp_path):
    store = filled_store(tmp_path / "run")
    before = sorted((tmp_path / "run").iterdir())
    with Mirror(tracked_study(), store, tmp_path / "run", Said()) as mirror:
        mirror.add(store.trials().values())
    assert sorted((tmp_path / "run").iterdir()) == before
    assert store.meta("tracking_run") is None
    store.close()


def test_a_mark_that_a_kill_tore_counts_for_nothing(tmp_path):
    add_mark(tmp_path, ("run-a", "1"))
    with (tmp_path / "sent.jsonl").open("a") as file:
        file.write('\n{"run": "run-b", "cont')
    add_mark(tmp_path, ("run-c", "3"))
    assert read_marks(tmp_path) == {("run-a", "1"), ("run-c", "3")}
    assert read_marks(tmp_path / "none") == set()
