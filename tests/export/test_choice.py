"""Which trial a person means, and what is said where that is not clear."""

import shutil
from contextlib import closing

import pytest

from loratlas.errors import ExportError
from loratlas.export.choice import choose
from loratlas.study.folder import open_run
from made_runs import change_trial, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("made") / "run"
    return make_run(folder, str(tiny_folder), "attention", seeds=(0, 1, 2), weights=False)


@pytest.fixture
def chosen(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")

    def call(wanted):
        with closing(open_run(run)) as store:
            return choose(store, wanted)[1].seed

    call.run = run
    return call


def refusal(chosen, wanted):
    with pytest.raises(ExportError) as caught:
        chosen(wanted)
    return str(caught.value)


def test_a_seed_or_the_beginning_of_a_digest_says_which(chosen):
    assert chosen("placed:1") == 1
    assert chosen("02ab02") == chosen("02AB02AB") == 2


def test_a_placement_with_several_trials_lists_them(chosen):
    assert refusal(chosen, "placed") == (
        "placed has 3 trials; say which: placed:0, placed:1, placed:2"
    )


def test_a_placement_with_one_trial_that_is_done_means_it(chosen):
    change_trial(chosen.run, 0, status="diverged", error="the loss is nan")
    change_trial(chosen.run, 2, status="failed", error="out of memory")
    assert chosen("placed") == 1


def test_a_trial_that_is_not_done_is_refused(chosen):
    change_trial(chosen.run, 2, status="diverged", error="the loss is nan")
    assert (
        refusal(chosen, "placed:2")
        == refusal(chosen, "02ab02ab")
        == (
            "placed, seed 2, rate 0.003: this trial diverged: the loss is nan; "
            "only a trial that is done can be exported"
        )
    )
    change_trial(chosen.run, 1, adapter=None)
    assert refusal(chosen, "placed:1").endswith("the run holds no adapter of this trial")


def test_what_is_not_there_is_said_with_what_is(chosen):
    assert refusal(chosen, "placed:7") == (
        "placed has no trial of seed 7; there is: placed:0, placed:1, placed:2"
    )
    assert refusal(chosen, "plaecd:1") == (
        "plaecd:1: no placement or trial of this run has this name (did you mean placed?); it "
        "takes PLACEMENT, PLACEMENT:SEED, or 6 or more characters of a trial's digest; "
        "the placements are placed"
    )
    assert "no placement or trial" in refusal(chosen, "02ab")  # too short to be meant
    assert "no placement or trial" in refusal(chosen, "ffffffff")


def test_a_digest_of_several_trials_is_refused(chosen):
    change_trial(chosen.run, 1, digest="02ab02ab02ff" + "0" * 52, learning_rate=1e-4)
    assert refusal(chosen, "02ab02ab") == (
        "02ab02ab: 2 trials have this digest; say more: 02ab02ab02ab, 02ab02ab02ff"
    )


def test_a_name_may_look_like_a_placement_and_a_seed(tmp_path, tiny_folder):
    run = make_run(tmp_path / "run", str(tiny_folder), "attention", name="a:1", weights=False)
    with closing(open_run(run)) as store:
        assert choose(store, "a:1")[1].seed == 0
        assert choose(store, "a:1:0")[1].seed == 0
