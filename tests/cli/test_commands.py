"""What the commands print and leave behind, in this process and through a real one."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from loratlas.errors import TrialError
from loratlas.study import run as run_module
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe

COMMAND = [sys.executable, "-m", "loratlas.cli.main"]
ODD_NAMES = [
    "[red]x[/red]",
    "[/]",
    ":bug:",
    "</script>",
    "=cmd()",
    "untuned base",
    "läuft 走",
    "%s",
]


@pytest.fixture
def quick_probe(monkeypatch):
    found = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: found)


def rename(folder: Path, names: list[str], seeds: int = 1) -> Path:
    """Write a study of `folder` whose placements have these names."""
    text = (folder / "study.yaml").read_text()
    head, _, tail = text.partition("placements:\n")
    tail = tail.partition("baseline: full\n")[2].replace("seeds: 2", f"seeds: {seeds}")
    rules = [
        "all",
        "attention",
        "feed_forward",
        *(f"{word} @ layers({i})" for word in ("all", "attention") for i in range(3)),
    ]
    lines = [
        f"  {json.dumps(name, ensure_ascii=False)}: {rules[i % len(rules)]}\n"
        for i, name in enumerate(names)
    ]
    (folder / "odd.yaml").write_text(f"{head}placements:\n{''.join(lines)}{tail}")
    return folder / "odd.yaml"


# --- in this process


def test_the_version(cli):
    from importlib.metadata import version

    said = cli("--version")
    assert (said.code, said.out, said.err) == (0, f"{version('loratlas')}\n", "")


def test_nothing_asked_for(cli):
    said = cli()
    assert said.code == 2
    assert "Usage: loratlas" in said.out
    for verb in ("doctor", "anatomy", "place", "plan", "run", "status", "results", "schema"):
        assert verb in said.out


def test_names_are_printed_as_they_stand(cli, study_folder, tmp_path, quick_probe):
    """Names come from files: they are no markup, no emoji codes, and no orders to a terminal."""
    study, out = rename(study_folder, ODD_NAMES), tmp_path / "r ü n [red] [/]"
    said = cli("plan", study)
    assert said.code == 0
    assert all(name in said.out for name in ODD_NAMES if name != "läuft 走")
    said = cli("run", study, "--out", out)
    assert said.code == 0, said
    assert said.out.splitlines()[-1] == f"run folder: {out}"
    lines = said.out.splitlines()
    for name in ODD_NAMES:
        assert sum(line.startswith(f" {name} ") for line in lines) >= 3, name
    assert sum(line.startswith(" untuned base ") for line in lines) == 5
    found = cli("results", out, "--json")
    assert list(found.json["placements"]) == ODD_NAMES
    assert found.out.isascii()
    adapters = sorted(path.name for path in (out / "adapters").iterdir())
    assert len(adapters) == len(ODD_NAMES)
    assert cli("status", out).out.startswith("tiny: 8 of 8 trials done, 0 missing")


def test_the_longest_name_fits_a_file_system(cli, study_folder, quick_probe):
    """64 characters of four bytes each are more than a file name may have."""
    said = cli("run", rename(study_folder, ["𠀀" * 64]), "--out", study_folder / "run")
    assert said.code == 0, said


@pytest.mark.parametrize("out", [None, "r", "deep/er/r", "a b/ü"])
def test_where_a_run_goes(cli, study_folder, tmp_path, monkeypatch, quick_probe, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study = rename(study_folder, ["full"])
    said = cli("run", os.path.relpath(study), *([] if out is None else ["--out", out]), "--json")
    assert said.code == 0, said
    assert said.json["run"] == (out or "runs/tiny")
    assert (tmp_path / "here" / (out or "runs/tiny") / FILE_NAME).is_file()


def test_an_empty_folder_is_taken_and_a_second_study_is_not(
    cli, refused, study_folder, tmp_path, quick_probe
):
    out = tmp_path / "out"
    out.mkdir()
    study = rename(study_folder, ["full"])
    assert cli("run", study, "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    study.write_text(
        study.read_text().replace("steps: 3", "steps: 4").replace("rank: 2", "rank: 3")
    )
    assert refused("run", study, "--out", out) == (
        f"{out}: holds another study: lora.rank was 2, now 3; training.steps was 3, now 4; "
        "give another folder with --out, or leave this one as it is and begin beside it with "
        "--new-version"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def by(engine, study: Path) -> Path:
    """Let an engine carry a study out."""
    study.write_text(study.read_text() + f"engine: {engine.key}\n")
    return study


def test_a_failed_trial_is_exit_1_and_the_others_are_shown(cli, study_folder, quick_probe, engine):
    def fails(seed, _rate):
        if seed == 1:
            raise RuntimeError("out of [red]memory[/] \x1b[2J")

    engine.disturb(fails)
    study, out = by(engine, study_folder / "study.yaml"), study_folder / "run"
    said = cli("run", study, "--out", out)
    assert said.code == 1
    assert "1 of 2" in said.out
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err
    told = r"full, rate 0.01, seed 1: RuntimeError: out of [red]memory[/] \x1b[2J"
    assert told in said.err
    assert told in cli("status", out).out
    assert "Traceback" in (out / "run.log").read_text()
    engine.let_be()
    assert cli("run", study, "--out", out).code == 0


def test_a_trial_that_fails_at_a_rate_not_chosen_is_exit_1_too(
    cli, study_folder, quick_probe, engine
):
    def fails(_seed, rate):
        if rate == 1e-3:
            raise RuntimeError("out of memory")

    engine.disturb(fails)
    study = by(engine, rename(study_folder, ["full"]))
    study.write_text(study.read_text().replace("1e-2", "[1e-3, 1e-2]"))
    said = cli("run", study, "--out", study_folder / "run", "--json")
    assert said.code == 1
    assert said.json["placements"]["full"]["num_failed"] == 0
    assert "full, rate 0.001, seed 0: RuntimeError: out of memory" in said.err


def test_a_failed_probe_is_a_sentence(cli, study_folder, monkeypatch):
    def fail(_task):
        raise TrialError("BrokenProcessPool: a process ended")

    monkeypatch.setattr(run_module, "probe", fail)
    said = cli("run", rename(study_folder, ["full"]), "--out", study_folder / "run", "--json")
    assert said.code == 0
    assert "full: the probe failed: BrokenProcessPool: a process ended" in said.err
    arm = said.json["placements"]["full"]
    assert (arm["seconds"], arm["peak_memory_bytes"]) == (None, None)


def test_ctrl_c_is_a_sentence(cli, study_folder, quick_probe, engine):
    engine.interrupt(lambda _seed: True)
    study, out = by(engine, study_folder / "study.yaml"), study_folder / "run"
    said = cli("run", study, "--out", out)
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith(
        f"loratlas: stopped; finished trials are kept in {out}, the same command goes on\n"
    )
    assert cli("status", out, "--json").json["missing"] == 4
    engine.let_be()
    assert cli("run", study, "--out", out).code == 0


def test_ctrl_c_elsewhere(cli, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("loratlas.anatomy.read.read", interrupted)
    said = cli("anatomy", "demo:gpt2")
    assert (said.code, said.out, said.err) == (1, "", "loratlas: stopped\n")


def test_rows_in_two_splits_are_said(cli, study_folder, quick_probe):
    lines = (study_folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (study_folder / "test.jsonl").write_text("".join(lines[:12]))
    study = rename(study_folder, ["full"])
    files = "source: {train: rows.jsonl, test: test.jsonl}"
    study.write_text(study.read_text().replace("source: rows.jsonl", files))
    said = cli("run", study, "--out", study_folder / "run")
    assert said.code == 0, said
    told = (
        "rows.jsonl: rows dropped because the source's own test or validation split holds them: 12"
    )
    assert told in said.err


def test_a_journal_that_a_kill_left_is_rolled_back(cli, tmp_path):
    """Killed inside a commit, the next command must not be stopped by the half-written file."""
    path = tmp_path / "run" / FILE_NAME
    path.parent.mkdir()
    Store(path, writable=True).close()
    dies = (
        "import os, sqlite3, sys\n"
        "base = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "base.execute('PRAGMA cache_size = 1')\n"
        "base.execute('BEGIN IMMEDIATE')\n"
        "for i in range(3000):\n"
        "    base.execute('INSERT INTO meta VALUES (?, ?)', (f'k{i}', '\"' + 500 * 'x' + '\"'))\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", dies, str(path)], check=False).returncode == 9
    assert path.with_name(f"{FILE_NAME}-journal").stat().st_size > 0
    said = cli("status", path.parent, "--json")
    assert (said.code, said.err) == (0, "")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchone() == (1,)


def test_looking_at_a_run_cannot_change_it(tmp_path):
    from loratlas.errors import StoreError

    Store(tmp_path / FILE_NAME, writable=True).close()
    reader = Store(tmp_path / FILE_NAME)
    with pytest.raises(StoreError, match="readonly"):
        reader.set_meta("name", "another")


# --- as a process of its own


def process(*arguments: object, **options) -> subprocess.CompletedProcess:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, **options
    )


def test_help_comes_at_once():
    """Under half a second on a quiet machine; processor time does not mind a busy one."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = process("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert said.returncode == 0
        assert said.stderr == ""
    assert median(seconds) < 1.0, seconds


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from loratlas.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'pydantic', 'sqlalchemy', 'numpy', 'scipy'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_run_into_pipes(study_folder, cli):
    """JSON stands alone on stdout; stderr holds sentences, no bar and no order to a terminal."""
    study = rename(study_folder, ["full"])
    said = process("run", study, "--out", study_folder / "run", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["placements"]["full"]["num_trials"] == 1
    assert found["placements"]["full"]["seconds"] > 0
    assert said.stderr.splitlines() == [f"reading {found_model(study)}", "scoring the untuned base"]
    repeated = cli("run", study, "--out", study_folder / "run")
    assert repeated.code == 0
    assert repeated.err.splitlines() == [f"reading {found_model(study)}"]
    assert "\x1b" not in repeated.out


def found_model(study: Path) -> str:
    return next(
        line.removeprefix("model: ")
        for line in study.read_text().splitlines()
        if line.startswith("model: ")
    )


def test_a_refusal_by_a_process(study_folder):
    study = study_folder / "study.yaml"
    study.write_text(study.read_text().replace("rank: 2", "rank: 0"))
    said = process("run", study, "--out", study_folder / "run", "--json")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == (
        f"loratlas: {study}:14: lora.rank: 0 is too small; a rank is an integer from 1 up "
        "(to 65536)\n"
    )
    assert not (study_folder / "run").exists()


@pytest.mark.slow
def test_a_stdout_that_knows_no_more_than_ascii(study_folder):
    study = rename(study_folder, ["läuft 走"])
    said = process("plan", study, "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert said.returncode == 0, said.stderr
    assert list(json.loads(said.stdout)["placements"]) == ["läuft 走"]


@pytest.mark.slow
def test_ctrl_c_at_a_terminal(study_folder, cli, quick_probe):
    """SIGINT reaches the whole process group, the probe's processes too; one sentence follows."""
    study, out = study_folder / "study.yaml", study_folder / "run"
    running = subprocess.Popen(
        [*COMMAND, "run", str(study), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in running.stderr:
        if line.startswith("scoring the untuned base"):
            break
    time.sleep(1.5)  # into the probes: their server loads libraries for some seconds
    os.killpg(running.pid, signal.SIGINT)
    printed, told = running.communicate(timeout=120)
    assert (running.returncode, printed) == (1, "")
    assert told == (
        f"loratlas: stopped; finished trials are kept in {out}, the same command goes on\n"
    )
    assert cli("run", study, "--out", out).code == 0
    assert cli("status", out, "--json").json["complete"]
