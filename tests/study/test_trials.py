import pytest

from loratlas.study.trials import (
    Validated,
    at_chosen_rate,
    choose_learning_rate,
    num_trials,
    sweep,
)


def done(rate, loss):
    return Validated(learning_rate=rate, status="done", loss=loss)


def test_the_rate_with_the_lowest_mean_is_chosen():
    trials = [done(1e-4, 2.0), done(1e-4, 2.2), done(2e-4, 1.9), done(2e-4, 2.0)]
    assert choose_learning_rate(trials) == 2e-4
    assert choose_learning_rate([done(2e-4, 1.0), done(1e-4, 1.0)]) == 1e-4


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_rate_that_broke_once_is_not_eligible(status):
    broken = Validated(learning_rate=4e-4, status=status, loss=None)
    assert choose_learning_rate([done(1e-4, 2.0), done(4e-4, 1.0), broken]) == 1e-4
    assert (
        choose_learning_rate([broken, Validated(learning_rate=1e-4, status=status, loss=None)])
        is None
    )


def test_one_rate_needs_no_validation_rows():
    assert choose_learning_rate([Validated(learning_rate=1e-4, status="done", loss=None)]) == 1e-4
    broken = Validated(learning_rate=1e-4, status="diverged", loss=None)
    assert choose_learning_rate([broken]) == 1e-4, "its table line must show the failures"


def test_which_trials_a_study_asks_for(write_study):
    study = write_study(
        training="{learning_rate: [1e-4, 2e-4, 4e-4], steps: 1}", seeds="5", sweep_seeds="2"
    )
    placements = [_named(name) for name in study.placements]
    swept = sweep(study, placements)
    assert len(swept) == 2 * len(placements) * 3
    assert {cell.seed for cell in swept} == {0, 1}
    assert [cell.seed for cell in swept] == sorted(cell.seed for cell in swept)
    chosen = dict.fromkeys(study.placements, 2e-4)
    rest = at_chosen_rate(study, placements, chosen)
    assert len(rest) == 3 * len(placements)
    assert {cell.seed for cell in rest} == {2, 3, 4}
    assert num_trials(study, placements) == len(swept) + len(rest)
    none = at_chosen_rate(study, placements, {**chosen, placements[0].name: None})
    assert {cell.placement.name for cell in none} == {p.name for p in placements[1:]}


def test_a_single_rate_runs_every_seed_at_once(write_study):
    study = write_study(training="{learning_rate: 1e-4, steps: 1}", seeds="3", sweep_seeds="1")
    placements = [_named(name) for name in study.placements]
    assert len(sweep(study, placements)) == 3 * len(placements) == num_trials(study, placements)
    assert at_chosen_rate(study, placements, dict.fromkeys(study.placements, 1e-4)) == []


def test_placements_that_are_the_same_share_their_trials(write_study):
    study = write_study(training="{learning_rate: 1e-4, steps: 1}", seeds="3")
    same = [_named("attention"), _named("attention")]
    assert num_trials(study, same) == 3


def _named(name):
    from types import SimpleNamespace

    return SimpleNamespace(name=name, digest=f"digest of {name}")


@pytest.fixture
def write_study(tmp_path):
    from loratlas.study.spec import parse_study

    def write(**changes):
        text = "name: x\nmodel: demo:gpt2\n"
        text += "data: {source: a.jsonl, format: text, loss_on: everything}\n"
        text += "placements: {full: all, attention: attention}\n"
        text += "".join(f"{key}: {value}\n" for key, value in changes.items())
        return parse_study(text, tmp_path / "study.yaml")

    return write
