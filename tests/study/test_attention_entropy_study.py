"""A policy with a prior from the base's attention, from the study file to the report."""

from contextlib import closing

import pytest

import families
from loratlas.analysis.summary import results
from loratlas.dynamic.spec import POLICIES
from loratlas.errors import StudyError
from loratlas.report.document.contents import contents
from loratlas.report.document.facts import gather
from loratlas.study import learning, training
from loratlas.study.folder import open_run
from loratlas.study.options import RunOptions
from loratlas.study.progress import Silent
from loratlas.study.run import run_study
from loratlas.study.spec import load_study

STUDY = """\
name: attentive
model: model
data: {source: rows.jsonl, format: prompt_completion, train: 24, validation: 6, test: 8,
       max_length: 48}
placements:
  full: all
  moving: {policy: attention_entropy, rows: 6, warmup: 2, final: 2, interval: 3, strength: -0.9}
baseline: full
lora: {rank: 2, alpha: 4}
training: {steps: 12, batch: 4, learning_rate: 1e-2}
seeds: 1
"""


@pytest.fixture
def study_of(tmp_path):
    """Returns the study on a tiny Llama, after a replacement in its file."""
    families.write("llama", tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(families.prompt_rows(50))

    def call(old="", new=""):
        assert old in STUDY
        (tmp_path / "study.yaml").write_text(STUDY.replace(old, new, 1))
        return load_study(tmp_path / "study.yaml")

    return call


class Killed(BaseException):
    """Ends a run as a signal would."""


def killed(*_arguments, **_options):
    raise Killed


def run(study, folder):
    run_study(study, folder, Silent(), RunOptions(probe=False))
    return folder


def told_of(folder):
    """What is kept of the placement, and of its trial."""
    with closing(open_run(folder)) as store:
        (record,) = [each for each in store.placements() if each.name == "moving"]
        (trial,) = [t for t in store.trials().values() if t.placement_digest == record.digest]
    return record, trial


def test_it_is_read_trained_and_reported(study_of, tmp_path):
    folder = run(study_of(), tmp_path / "run")
    record, trial = told_of(folder)
    assert trial.status == "done", trial.error
    assert trial.trajectory["policy"] == "attention_entropy"
    assert trial.trajectory["decisions"]
    assert trial.ended_parameters <= record.budget
    entropies, priors = record.learned["entropies"], record.learned["priors"]
    assert list(entropies) == ["decoder 0", "decoder 1", "decoder 2"]
    assert all(0 < entropy < 1 for entropy in entropies.values())
    assert {path.rsplit(".", 1)[1] for path in priors} == {"q_proj", "k_proj"}
    mean = sum(entropies.values()) / 3
    expected = 1 - 0.9 * (entropies["decoder 1"] - mean)
    assert priors["model.layers.1.self_attn.q_proj"] == pytest.approx(expected)

    with closing(open_run(folder)) as store:
        found = results(store)["placements"]["moving"]
        (section,) = [each for each in contents(gather(folder, store)) if each.name == "moved"]
    assert found["selection_seconds"] == record.learned["seconds"] > 0
    assert set(POLICIES["attention_entropy"].notes) <= set(section.words)
    by_name = {table.name: table for table in section.tables}
    shown = [[cell.text for cell in row] for row in by_name["entropies"].rows]
    assert shown == [["moving", layer, f"{h:.4f}"] for layer, h in entropies.items()]


def test_a_run_that_was_killed_reads_nothing_again_and_gives_the_same_numbers(
    study_of, tmp_path, monkeypatch
):
    study = study_of()
    whole = told_of(run(study, tmp_path / "whole"))
    with monkeypatch.context() as patched:
        patched.setattr(training.Store, "add_trials", killed)
        with pytest.raises(Killed):
            run(study, tmp_path / "killed")
    # Another entropy would be another prior: what was read stands in the run folder.
    monkeypatch.setattr(learning, "attention_entropies", killed)
    record, trial = told_of(run(study, tmp_path / "killed"))
    for name in ("priors", "entropies"):
        assert record.learned[name] == whole[0].learned[name]
    assert trial.losses == whole[1].losses
    assert trial.trajectory == whole[1].trajectory
    assert trial.final == whole[1].final


def test_a_repeated_run_changes_nothing(study_of, tmp_path, monkeypatch):
    folder = run(study_of(), tmp_path / "run")
    before = told_of(folder)
    monkeypatch.setattr(learning, "attention_entropies", killed)
    run(study_of(), folder)
    assert told_of(folder) == before


def test_more_rows_than_there_are_are_refused(study_of, tmp_path):
    study = study_of("rows: 6", "rows: 99")
    with pytest.raises(StudyError) as caught:
        run(study, tmp_path / "run")
    assert str(caught.value) == (
        f"{study.path}:7: placements.moving: rows: 99 rows are to be read, and there are 24 "
        "training rows; allowed: 1 to 24"
    )
    assert not (tmp_path / "run").exists()
