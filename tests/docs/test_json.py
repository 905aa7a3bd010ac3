"""Are the keys of docs/reference/json.md those that the commands print, and no others?"""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from loratlas.cli.main import main
from loratlas.measure.answers import TaskScore
from loratlas.study import run as run_module
from loratlas.study.folder import FILE_NAME
from loratlas.study.records import BASE, TrialRecord
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"

# Keys that depend on the study stand in the tables as one word in capitals.
FREE = {
    "stacks": "STACK",
    "placements": "NAME",
    "families": "FAMILY",
    "losses": "SEED",
    "values": "SEED",
    "tasks": "TASK",
    "TASK": "METRIC",
    "sweeps": "NAME",
    "rank_pattern": "PATTERN",
    "alpha_pattern": "PATTERN",
}


def keys(value) -> set[str]:
    """Return the keys of JSON as the tables write them: ``placements.NAME.warnings[].code``.

    A list that is empty here and not there counts as the one that is not.
    """
    found = set(walk(value, ""))
    return {key for key in found if not any(other.startswith(f"{key}[]") for other in found)}


def walk(value, path):
    if isinstance(value, dict):
        free = FREE.get(path.rpartition(".")[2])
        if free and not value:
            yield f"{path}.{free}"
        for key, inner in value.items():
            yield from walk(inner, f"{path}.{free or key}".lstrip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from walk(item, f"{path}[]")
    else:
        yield path


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[
        1 + ["doctor", "anatomy", "place", "plan", "run and results", "status"].index(name)
    ]


def documented(name: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", section(name), flags=re.MULTILINE))


def example(name: str) -> dict:
    return json.loads(re.search(r"```json\n(.*?)```", section(name), flags=re.DOTALL)[1])


def printed(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def environment_as(word: str, found: set[str], kept: tuple[str, ...] = ()) -> set[str]:
    """Fold the versions of libraries into one key, as the tables do."""
    return {
        key
        if not key.startswith("environment.") or key.removeprefix("environment.") in kept
        else f"environment.{word}"
        for key in found
    }


DOCTOR_KEYS = ("python", "platform", "processor", "num_cores", "num_threads", "device", "gpu")


def test_doctor(capsys):
    found = keys(printed(capsys, "doctor"))
    assert environment_as("LIBRARY", found, DOCTOR_KEYS) == documented("doctor")


def test_anatomy(capsys):
    found = keys(printed(capsys, "anatomy", "demo:gpt2"))
    assert found == documented("anatomy") == keys(example("anatomy"))


def test_place(capsys):
    rule = "names(c_proj) @ first(1) + names(c_attn):4"
    found = keys(printed(capsys, "place", "demo:gpt2", rule))
    assert found == documented("place") == keys(example("place"))


def test_plan(capsys, study_folder):
    _add_a_warning(study_folder)
    found = keys(printed(capsys, "plan", str(study_folder / "study.yaml")))
    assert found == documented("plan") == keys(example("plan"))


def test_run_results_and_status(capsys, study_folder, monkeypatch):
    quick = Probe(
        seconds_per_step=0.5,
        tokens_per_second=9.0,
        peak_memory_bytes=1,
        num_steps=6,
        engine="e",
        roles=[{"role": "attention", "parameters": 4, "flops_per_token": 1.0, "bytes": 2}],
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: quick)
    _add_a_warning(study_folder)
    _add_what_cannot_be_packed(study_folder)
    folder = study_folder / "run"
    _add_forgetting(study_folder)
    with (study_folder / "study.yaml").open("a") as file:
        file.write('hypothesis: {attention: "at least 95% of full"}\n')
    ran = printed(capsys, "run", str(study_folder / "study.yaml"), "--out", str(folder))
    assert ran == {**printed(capsys, "results", str(folder)), "run": str(folder)}
    _add_a_task(folder)
    found = printed(capsys, "results", str(folder))
    expected = documented("run and results")
    assert environment_as("ENTRY", keys(found)) == expected
    assert environment_as("ENTRY", keys(example("run and results"))) == expected

    _add_a_diverged_trial(folder)
    found = keys(printed(capsys, "status", str(folder)))
    assert found == documented("status") == keys(example("status"))


def test_every_row_says_when_its_value_is_null():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert cells[2], row


def _add_a_warning(folder: Path) -> None:
    study = folder / "study.yaml"
    text = study.read_text().replace(
        "  attention: attention\n", "  attention: attention\n  named: names(c_proj)\n"
    )
    study.write_text(text)


def _add_what_cannot_be_packed(folder: Path) -> None:
    study = folder / "study.yaml"
    text = study.read_text().replace("placements:\n", "placements:\n  tokens: embedding\n")
    study.write_text(text)


def _add_forgetting(folder: Path) -> None:
    text = [json.dumps({"text": f"Ben number {number} lives in Rome"}) for number in range(4)]
    (folder / "text.jsonl").write_text("\n".join(text))
    study = folder / "study.yaml"
    measure = "measures: [{task: forgetting, source: text.jsonl, rows: 4}]\n"
    study.write_text(study.read_text() + measure)


def _add_a_task(folder: Path) -> None:
    with closing(Store(folder / FILE_NAME, writable=True)) as store:
        found = TaskScore(metrics={"acc": 0.5}, answers=(), seconds=1.0)
        for trial in (BASE, *store.trials()):
            store.set_measurement(trial, "lm_eval:x", "digest", found)
        store.set_meta("measures", {**store.meta("measures"), "lm_eval:x": "digest"})


def _add_a_diverged_trial(folder: Path) -> None:
    store = Store(folder / FILE_NAME, writable=True)
    record = TrialRecord(
        digest="0" * 64,
        placement_digest=store.placements()[0].digest,
        learning_rate=1.0,
        seed=9,
        status="diverged",
        error="diverged",
        engine="reference",
    )
    store.add_trial(record, {}, {})
    store.set_meta("wanted", [*store.meta("wanted"), record.digest])
    store.close()
