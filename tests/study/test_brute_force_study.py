"""Groups that are tried by training: which trials, and what their losses say of each site."""

import re
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from loratlas.errors import RunFolderError, StudyError, TrialError
from loratlas.placement.placement import place
from loratlas.study import training
from loratlas.study.brute_force import brute_force, derive
from loratlas.study.brute_force_values import EVERYTHING, read_table
from loratlas.study.folder import open_run
from loratlas.study.progress import Silent
from loratlas.study.records import BASE
from loratlas.study.resolve import resolve_study
from loratlas.study.scoring_options import BruteForceOptions
from loratlas.study.spec import load_study
from loratlas.train.reference import DivergedError

ADD = BruteForceOptions(method="add_one_in", by="role")
LEAVE = BruteForceOptions(method="leave_one_out", by="role")


@pytest.fixture
def study(study_folder):
    return load_study(study_folder / "study.yaml")


def tried(study, options, name="run"):
    folder = study.root / name
    return brute_force(study, folder, options, Silent()), folder


def losses(folder):
    """Validation losses of the base, and of each placement by seed."""
    with closing(open_run(folder)) as store:
        names = {record.digest: record.name for record in store.placements()}
        found = {BASE: store.scores(BASE)["validation"].loss}
        for trial in store.trials().values():
            loss = store.scores(trial.digest)["validation"].loss
            found.setdefault(names[trial.placement_digest], {})[trial.seed] = loss
    return found


def of_role(table, anatomy, role):
    """The scores of the sites of a role: one value."""
    scores = {s for s in table.scores if str(anatomy.by_path[s.path].role) == role}
    (value,) = {(score.value, score.stderr) for score in scores}
    assert len(scores) == 3
    return value


def test_each_group_alone(study, anatomy):
    table, folder = tried(study, ADD)
    found = losses(folder)
    assert len(found) == 5
    for role in ("attention.qkv", "attention.o", "feed_forward.up", "feed_forward.down"):
        gains = found[BASE] - np.array([found[role][seed] for seed in (0, 1)])
        value, stderr = of_role(table, anatomy, role)
        assert value == pytest.approx(gains.mean())
        assert stderr == pytest.approx(abs(gains[0] - gains[1]) / 2)
    assert (table.method, table.granularity, table.higher_is_better) == (
        "add_one_in",
        "group",
        True,
    )
    assert table.unit == "nats per token of validation loss"
    # 8 trials of 3 steps of 4 rows; 9 times 8 validation and 12 test rows were scored.
    assert table.cost.num_backwards == 96
    assert table.cost.num_forwards == 96 + 9 * 20
    assert table.cost.seconds > 0
    assert table.settings["groups"] == dict.fromkeys(
        ("attention.qkv", "attention.o", "feed_forward.up", "feed_forward.down"), 3
    )


def test_all_groups_but_one(study, anatomy):
    table, folder = tried(study, LEAVE)
    found = losses(folder)
    assert len(found) == 6
    for role in ("attention.qkv", "feed_forward.down"):
        without, whole = found[f"without {role}"], found[EVERYTHING]
        gains = np.array([without[seed] - whole[seed] for seed in (0, 1)])
        value, stderr = of_role(table, anatomy, role)
        assert value == pytest.approx(gains.mean())
        assert stderr == pytest.approx(abs(gains[0] - gains[1]) / 2)


def test_the_agreement_is_that_of_halves_of_the_validation_rows(study):
    table, folder = tried(study, ADD)
    with closing(open_run(folder)) as store:
        base = store.scores(BASE)["validation"]
        names = {record.digest: record.name for record in store.placements()}
        halves = {}
        for trial in store.trials().values():
            score = store.scores(trial.digest)["validation"]
            for half in (slice(4), slice(4, 8)):
                gain = (base.nll - score.nll)[half].sum() / base.num_tokens[half].sum()
                halves.setdefault((names[trial.placement_digest], half.start), []).append(gain)
    first, second = ([np.mean(v) for (_, s), v in halves.items() if s == at] for at in (None, 4))
    concordant = sum(
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        for i in range(4)
        for j in range(i)
    )
    assert table.agreement == pytest.approx(concordant / 6)
    # Four values prove nothing unless they agree perfectly.
    assert bool(table.notes) == (concordant < 6)


def test_a_run_that_is_there_is_read_and_one_that_broke_off_goes_on(study, monkeypatch, anatomy):
    first, folder = tried(study, ADD)

    def never(*_arguments, **_more):
        raise AssertionError("a finished trial was started again")

    monkeypatch.setattr(training, "run_pack", never)
    monkeypatch.setattr(training, "run_trial", never)
    again, _ = tried(study, ADD)
    assert again == first
    with closing(open_run(folder)) as store:
        assert read_table(store, derive(study, anatomy, ADD), anatomy) == first
    # Another question does not fit into the same folder.
    with pytest.raises(RunFolderError, match="holds another study"):
        tried(study, LEAVE)


def test_the_run_folder_keeps_the_study_that_was_run(study):
    _, folder = tried(study, replace(ADD, seeds=(5,)))
    kept = load_study(folder / "study.yaml")
    assert list(kept.placements) == [
        "attention.qkv",
        "attention.o",
        "feed_forward.up",
        "feed_forward.down",
    ]
    assert (kept.name, kept.seeds, kept.match) == ("tiny-add_one_in", (5,), "none")


def test_placements_are_groups_at_the_studys_rank(study, anatomy):
    for options, count in ((ADD, 4), (LEAVE, 5)):
        trials = derive(study, anatomy, replace(options, by="role"))
        placements = {p.name: p.placement for p in resolve_study(trials.study, anatomy)}
        assert len(placements) == count
        assert {a.rank for p in placements.values() for a in p.adapters} == {2}
        for group, name in zip(trials.groups, trials.placements, strict=True):
            paths = {adapter.site.path for adapter in placements[name].adapters}
            own = {site.path for site in group.sites}
            everything = {a.site.path for a in place(anatomy, "all").adapters}
            assert paths == (own if options is ADD else everything - own)


def test_parameters_are_matched_to_the_largest_when_asked(study, anatomy):
    trials = derive(study, anatomy, replace(ADD, match="parameters"))
    counts = {
        p.name: p.placement.trainable_parameters for p in resolve_study(trials.study, anatomy)
    }
    # feed_forward.up and .down cost 32 + 128 a rank, 2 ranks in each of 3 layers.
    assert trials.study.baseline == "feed_forward.up"
    assert counts["feed_forward.up"] == counts["feed_forward.down"] == 960
    assert all(count == pytest.approx(960, rel=0.2) for count in counts.values())


def test_several_rates_are_chosen_from_by_the_validation_rows(study, anatomy):
    options = replace(ADD, learning_rate=(1e-9, 1e-2), seeds=(0,))
    table, folder = tried(study, options)
    with closing(open_run(folder)) as store:
        assert set(store.meta("chosen").values()) == {1e-2}
    assert all(score.stderr is None for score in table.scores)
    assert all(score.value > 1e-3 for score in table.scores)
    # Trials of every rate are paid for.
    assert table.cost.num_backwards == 96


def test_a_trial_that_diverged_is_left_out_and_named(study, monkeypatch, anatomy):
    _stop(monkeypatch, lambda placement, seed: seed == 1 and placement.startswith("attention.o"))
    table, _ = tried(study, ADD)
    assert "attention.o: 1 of 2 trials diverged or failed" in table.notes
    assert of_role(table, anatomy, "attention.o")[1] is None
    assert of_role(table, anatomy, "attention.qkv")[1] is not None


def test_a_group_without_a_trial_that_ended(study, monkeypatch):
    _stop(monkeypatch, lambda placement, seed: placement.startswith("attention.o"))  # noqa: ARG005
    with pytest.raises(TrialError, match=r"add_one_in: no trial of attention\.o ended: no more"):
        tried(study, ADD)


def test_sites_of_one_group(study, anatomy):
    options = replace(ADD, sites="attention.o")
    with pytest.raises(StudyError) as caught:
        derive(study, anatomy, options)
    assert str(caught.value).endswith(
        "study.yaml: add_one_in compares groups, and by role the sites attention.o are one: "
        "attention.o"
    )


def test_a_study_without_validation_rows(study, tmp_path):
    text = re.sub("validation: 8", "validation: 0", study.path.read_text())
    study.path.write_text(text)
    with pytest.raises(StudyError, match=r"data\.validation: no validation rows; add_one_in is re"):
        tried(load_study(study.path), ADD)
    assert not (tmp_path / "run").exists()


def _stop(monkeypatch, is_meant):
    """Let some trials diverge when they are saved."""
    from loratlas.study import pack_runner

    def save_slot(slot, folder, base):
        if is_meant(folder.name, slot.seed):
            raise DivergedError("no more numbers")
        real(slot, folder, base)

    real = pack_runner.save_slot
    monkeypatch.setattr(pack_runner, "save_slot", save_slot)
