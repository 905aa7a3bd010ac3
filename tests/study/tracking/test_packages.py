"""What each real package keeps of stored trials, offline, as its own reader gives it back."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from loratlas.measure.answers import TaskScore
from loratlas.study.tracking.mirror import Mirror
from loratlas.study.tracking.stored import tracked_trial
from loratlas.study.tracking.tracked import TrackedTrial

from .conftest import DIVERGED, DONE, SCORES, Said, filled_store, tracked_study

MEASURED = TaskScore(
    metrics={"exact_match,strict-match": 0.125, "bleu": None}, answers=(), seconds=2.0
)
TRACKERS = ("wandb", "mlflow", "tensorboard", "trackio")


class Mirrored:
    """A run folder whose trials were mirrored, and one of them again after a measure of it."""

    def __init__(self, folder: Path, trials: dict[str, TrackedTrial], heard: set[str]) -> None:
        self.folder = folder
        self.heard = heard
        self.done = trials["aaa"]
        self.diverged = trials["bbb"]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> Mirrored:
    folder = tmp_path_factory.mktemp("run")
    store, said = filled_store(folder), Said()
    watching = Mirror(tracked_study(*TRACKERS), store, folder, said)
    with listened_on() as heard, watching as mirror:
        mirror.add(store.trials().values())
        store.set_measurement("aaa", "lm_eval:gsm8k", "digest", MEASURED)
    assert [line for line in said.lines if not line.startswith("waiting")] == []
    trials = {
        record.digest: tracked_trial(
            store, record, study="tiny", model="demo:gpt2", run=store.meta("tracking_run")
        )
        for record in (DONE, DIVERGED)
    }
    store.close()
    return Mirrored(folder, trials, heard)


@contextmanager
def listened_on() -> Iterator[set[str]]:
    """Gather, a while, the addresses that processes of this one listen on."""
    found: set[str] = set()
    done = Event()

    def look() -> None:
        while not done.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    for each in process.net_connections("inet"):
                        if each.status == psutil.CONN_LISTEN:
                            found.add(each.laddr.ip)

    thread = Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def test_nothing_listens_beyond_this_machine(mirrored):
    assert {ip for ip in mirrored.heard if not ip_address(ip).is_loopback} == set()


def test_a_process_that_listens_is_heard():
    """Holds the test above to account."""
    serve = "import socket, time\nkept = socket.create_server(('0.0.0.0', 0))\ntime.sleep(60)"
    with listened_on() as heard, subprocess.Popen([sys.executable, "-c", serve]) as process:
        until = time.monotonic() + 20
        while not heard and time.monotonic() < until:
            time.sleep(0.05)
        process.kill()
    assert heard == {"0.0.0.0"}


def test_what_a_tracker_is_told_is_what_is_stored(mirrored):
    trial = mirrored.done
    assert trial.name == "full-lr0.001-seed7"
    assert trial.losses == DONE.losses
    assert trial.figures == {
        "seconds": 1.5,
        "validation/loss": SCORES["validation"].loss,
        "validation/perplexity": SCORES["validation"].perplexity,
        "validation/bits_per_byte": SCORES["validation"].bits_per_byte,
        "validation/accuracy": 1 / 8,
        "test/loss": 12.625 / 12,
        "test/perplexity": SCORES["test"].perplexity,
        "test/bits_per_byte": SCORES["test"].bits_per_byte,
        "test/accuracy": 3 / 12,
        "lm_eval:gsm8k/exact_match,strict-match": 0.125,
        "probe/seconds_per_step": 0.25,
        "probe/tokens_per_second": 512.5,
        "probe/num_steps": 6,
    }
    assert trial.settings["same_as"] == "everything"
    assert trial.settings["trainable_parameters"] == 512
    assert mirrored.diverged.name == "attention-lr10-seed0-attempt2"
    assert mirrored.diverged.settings["error"] == DIVERGED.error
    assert (mirrored.diverged.losses, mirrored.diverged.figures) == ([], {})


def test_a_trial_of_a_pack_has_no_seconds_of_its_own(tmp_path):
    store = filled_store(tmp_path / "run")
    totals = {"number": 1, "trials": 2, "seconds": 3.0}
    packed = replace(DONE, engine="packed", seconds=None, pack=totals)
    store.add_trial(packed, {}, SCORES)
    told = tracked_trial(store, packed, study="tiny", model="demo:gpt2", run="r")
    store.close()
    assert "seconds" not in told.figures
    assert told.figures["test/loss"] == SCORES["test"].loss
    assert told.losses == DONE.losses


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of an offline run: LevelDB's log format after 7 bytes of W&B's."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        _checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield whole
            whole = b""
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768


def read_wandb(folder: Path, run_id: str) -> dict:
    from wandb.proto.wandb_internal_pb2 import Record

    found = {"history": [], "summary": {}, "config": {}}
    [path] = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    for data in records(path):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
                found["config"] |= {
                    u.key: json.loads(u.value_json) for u in record.run.config.update
                }
            case "history":
                items = record.history.item
                found["history"].append(
                    {i.key or i.nested_key[0]: json.loads(i.value_json) for i in items}
                )
            case "summary":
                for item in record.summary.update:
                    key = item.key or "/".join(item.nested_key)
                    found["summary"][key] = json.loads(item.value_json)
            case "exit":
                found["exit"] = record.exit.exit_code
    return found


@pytest.mark.filterwarnings("ignore")
def test_wandb(mirrored):
    folder, trial = mirrored.folder / "tracking" / "wandb", mirrored.done
    found = read_wandb(folder, trial.run_id)
    run = found["run"]
    assert (run.project, run.run_group, run.display_name) == ("tiny", "full", trial.name)
    assert list(run.tags) == ["done"]
    assert {k: found["config"][k] for k in trial.settings} == trial.settings
    assert [(h["_step"], h["train/loss"]) for h in found["history"]] == [
        (1, DONE.losses[0]),
        (2, DONE.losses[1]),
        (3, DONE.losses[2]),
    ]
    assert {k: found["summary"][k] for k in trial.figures} == trial.figures
    assert found["exit"] == 0
    diverged = read_wandb(folder, mirrored.diverged.run_id)
    assert (list(diverged["run"].tags), diverged["exit"]) == (["diverged"], 1)
    assert diverged["config"]["error"] == DIVERGED.error


READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
[experiment] = [e for e in client.search_experiments() if e.name == "tiny"]
print(json.dumps({run.data.tags["loratlas.run_id"]: {
    "name": run.info.run_name, "status": run.info.status, "params": run.data.params,
    "tags": run.data.tags, "metrics": run.data.metrics, "artifacts": run.info.artifact_uri,
    "history": [
        (m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")
    ],
} for run in client.search_runs([experiment.experiment_id])}))
"""
READ_TRACKIO = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps({run.config["run_id"]: {
    "name": run.name, "config": run.config, "logs": SQLiteStorage.get_logs("tiny", run.name),
} for run in trackio.Api().runs("tiny")}))
"""


def read_in_a_process(code: str, *arguments: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_mlflow(mirrored):
    folder, trial = mirrored.folder / "tracking" / "mlflow", mirrored.done
    runs = read_in_a_process(READ_MLFLOW, f"sqlite:///{folder / 'mlflow.db'}")
    assert runs.keys() == {trial.run_id, mirrored.diverged.run_id}
    found = runs[trial.run_id]
    assert (found["name"], found["status"]) == (trial.name, "FINISHED")
    assert found["params"] == {name: str(value) for name, value in trial.settings.items()}
    assert found["history"] == [list(pair) for pair in enumerate(DONE.losses, start=1)]
    # MLflow takes no comma in a name.
    figures = {name.replace(",", "_"): value for name, value in trial.figures.items()}
    assert found["metrics"] == {"train/loss": DONE.losses[-1], **figures}
    assert found["artifacts"].startswith(folder.as_uri())
    diverged = runs[mirrored.diverged.run_id]
    assert (diverged["status"], diverged["metrics"]) == ("FAILED", {})
    assert diverged["tags"]["loratlas.status"] == "diverged"
    assert diverged["tags"]["loratlas.error"] == DIVERGED.error


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(mirrored):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder, trial = mirrored.folder / "tracking" / "tensorboard" / "tiny", mirrored.done
    assert len(list(folder.iterdir())) == 2
    found = EventAccumulator(str(folder / f"{trial.name}-{trial.run_id}"))
    found.Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    # Events hold fp32: 24 bits of mantissa.
    assert losses == [(i, pytest.approx(x, rel=2**-24)) for i, x in enumerate(DONE.losses, 1)]
    figures = {tag: found.Scalars(tag)[0].value for tag in trial.figures}
    assert figures == pytest.approx(trial.figures, rel=2**-24)
    [start] = found.PluginTagToContent("hparams").values()
    kept = HParamsPluginData.FromString(start).session_start_info.hparams
    assert kept["rule"].string_value == "full"
    assert kept["learning_rate"].number_value == 1e-3


def test_trackio(mirrored):
    folder, trial = mirrored.folder / "tracking" / "trackio", mirrored.done
    runs = read_in_a_process(READ_TRACKIO, TRACKIO_DIR=str(folder))
    assert runs.keys() == {trial.run_id, mirrored.diverged.run_id}
    found = runs[trial.run_id]
    assert found["name"] == trial.name
    assert {k: found["config"][k] for k in trial.settings} == trial.settings
    losses = [(log["step"], log["train/loss"]) for log in found["logs"] if "train/loss" in log]
    assert losses == list(enumerate(DONE.losses, start=1))
    [figures] = [log for log in found["logs"] if "test/loss" in log]
    assert {k: figures[k] for k in trial.figures} == trial.figures
    assert runs[mirrored.diverged.run_id]["config"]["error"] == DIVERGED.error


def test_nothing_is_sent_twice(mirrored):
    store, before = filled_store(mirrored.folder), sorted(mirrored.folder.rglob("*"))
    with Mirror(tracked_study(*TRACKERS), store, mirrored.folder, Said()) as mirror:
        mirror.add(store.trials().values())
    store.close()
    assert sorted(mirrored.folder.rglob("*")) == before
