"""The real processes: what a signal costs, and what it does not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from loratlas.study.folder import open_run
from loratlas.study.options import RunOptions
from loratlas.study.spec import load_study
from loratlas.study.workers.supervisor import StoppedError, supervise

STEPS = 30
# Every step is kept, so that a kill at any moment is followed by a start from the middle.
OPTIONS = RunOptions(probe=False, trials_per_pack=2, checkpoint_seconds=0)


class Witness:
    """A listener that does something once, when so many steps of the bar have been told of."""

    def __init__(self, deeds):
        self.said, self.steps, self._deeds = [], 0, sorted(deeds)

    def say(self, text):
        self.said.append(text)

    def begin(self, *_):
        self.steps = 0  # another worker tells of what was done before it

    def advance(self, num_steps=1):
        self.steps += num_steps
        while self._deeds and self.steps >= self._deeds[0][0]:
            self._deeds.pop(0)[1]()

    def end(self):
        pass


def kill_the_worker(number=signal.SIGKILL):
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, number)
    worker.join()  # nothing that it says later counts for the deeds


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def study(study_folder):
    file = study_folder / "study.yaml"
    file.write_text(file.read_text().replace("steps: 3", f"steps: {STEPS}"))
    return load_study(file)


@pytest.fixture
def whole(study, tmp_path):
    """What an uninterrupted run in this process gives."""
    from loratlas.study.progress import Silent
    from loratlas.study.run import run_study

    run_study(study, tmp_path / "whole", Silent(), OPTIONS)
    return found(tmp_path / "whole")


def found(folder):
    """Every number of a run, without what may differ: seconds, attempts."""
    with closing(open_run(folder)) as store:
        trials = store.trials()
        return {
            digest: (
                trial.status,
                trial.losses,
                {split: score.nll.tolist() for split, score in store.scores(digest).items()},
                (folder / trial.adapter / "adapter_model.safetensors").read_bytes(),
            )
            for digest, trial in trials.items()
        }


def attempts(folder):
    with closing(open_run(folder)) as store:
        return sorted(trial.attempts for trial in store.trials().values())


@pytest.mark.slow
def test_a_killed_worker_costs_one_attempt_of_one_pack(study, whole, tmp_path):
    """Killed in its first pack, then by a segmentation fault in its second."""
    deeds = [
        (2 * 11, kill_the_worker),
        (2 * STEPS + 2 * 7, lambda: kill_the_worker(signal.SIGSEGV)),
    ]
    witness = Witness(deeds)
    supervise(study, tmp_path / "run", witness, OPTIONS)
    assert found(tmp_path / "run") == whole
    assert attempts(tmp_path / "run") == [2, 2, 2, 2]
    told = [line for line in witness.said if "was ended" in line]
    assert told == [
        "the process that works was ended: SIGKILL (often for lack of memory); "
        "2 trials lose an attempt; starting another",
        "the process that works was ended: SIGSEGV; 2 trials lose an attempt; starting another",
    ]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_pack_that_ends_its_process_again_and_again_has_failed(study, whole, tmp_path):
    witness = Witness([(2 * step, kill_the_worker) for step in (5, 10, 15)])
    supervise(study, tmp_path / "run", witness, OPTIONS)
    with closing(open_run(tmp_path / "run")) as store:
        trials = store.trials().values()
        failed = [trial for trial in trials if trial.status == "failed"]
    assert len(trials) == 4
    assert {trial.error for trial in failed} == {
        "its process was ended 3 times: " + ", ".join(3 * ["SIGKILL (often for lack of memory)"])
    }
    assert {trial.attempts for trial in failed} == {4}
    supervise(study, tmp_path / "run", Witness([]), OPTIONS)
    assert found(tmp_path / "run") == whole


def test_ctrl_c_once_keeps_the_step_and_the_next_run_goes_on(study, whole, tmp_path):
    folder, witness = tmp_path / "run", Witness([(2 * 12, interrupt)])
    with pytest.raises(StoppedError) as told:
        supervise(study, folder, witness, OPTIONS)
    assert str(told.value) == (
        f"stopped; finished trials and the state of those under way are kept in {folder}, "
        "the same command goes on"
    )
    assert "stopping after this step; once more stops at once" in witness.said
    assert witness.steps < 2 * STEPS
    (kept,) = (folder / "checkpoints").iterdir()
    newest = max(int(path.name.removeprefix("step-")) for path in kept.iterdir())
    again = Witness([])
    supervise(study, folder, again, OPTIONS)
    assert found(folder) == whole
    # The steps before the stop are told of at once, and are not trained again.
    assert again.steps == 4 * STEPS
    assert newest >= 12
    assert attempts(folder) == [1, 1, 2, 2]


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(study, tmp_path):
    def twice():
        interrupt()
        interrupt()

    began = time.monotonic()
    with pytest.raises(StoppedError, match="finished trials are kept in"):
        supervise(study, tmp_path / "run", Witness([(2 * 3, twice)]), OPTIONS)
    assert time.monotonic() - began < 60
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_supervisor(study_folder, study, whole):
    """kill -9 of the command, at a step; the same command then ends with the numbers of a whole."""
    command = [sys.executable, "-m", "loratlas", "run", study.path, "--out", study_folder / "run"]
    command += ["--no-probe", "--pack", "2", "--checkpoint", "0"]
    environment = {**os.environ, "LORATLAS_WORKERS": "1"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    checkpoints = study_folder / "run" / "checkpoints"
    while not checkpoints.is_dir():
        time.sleep(0.01)
    (worker,) = children_of(running.pid)
    running.kill()
    running.wait()
    deadline = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)
    assert (
        subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    )
    assert found(study_folder / "run") == whole


def test_the_supervisor_loads_no_torch():
    """What fills the memory of a machine then ends the worker, and not the one that watches."""
    code = (
        "import sys, loratlas.cli.run, loratlas.cli.progress\n"
        "import loratlas.study.workers.supervisor, loratlas.study.spec\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def children_of(pid):
    """The processes that a process has started and that carry its worker."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
