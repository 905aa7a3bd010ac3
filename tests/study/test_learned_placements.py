"""Placements that scores choose, and placements that move, from the study file to the report."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Cap, Tie
from loratlas.analysis.arms import arms_of
from loratlas.analysis.costs import costs_of
from loratlas.analysis.moved import moved
from loratlas.analysis.recommend import recommend
from loratlas.analysis.summary import results
from loratlas.errors import DataError, StudyError
from loratlas.placement.placement import Placement
from loratlas.report.document.contents import contents
from loratlas.report.document.exports import result_rows, trial_rows
from loratlas.report.document.facts import gather
from loratlas.report.recommendations import recommendation, recommendation_notes
from loratlas.report.tables import notes
from loratlas.study import learning
from loratlas.study.folder import open_run
from loratlas.study.options import RunOptions
from loratlas.study.progress import Silent
from loratlas.study.request import read_anatomy
from loratlas.study.resolve import resolve_study
from loratlas.study.run import run_study
from loratlas.study.spec import load_study, parse_study
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.adapters import saved_adapters
from loratlas.train.outcome import Probe

ALONE = RunOptions(probe=False)
# Twelve steps: two before the budget moves, a decision every third step, two after the last.
MOVES = "{policy: saliency, warmup: 2, final: 2, interval: 3, initial: 2}"
LONGER = ("steps: 3", "steps: 12")


@pytest.fixture
def study_of(study_folder):
    """Returns the tiny study with another placement, after replacements in its file."""

    def call(form, *changes, name="learned"):
        path = study_folder / "study.yaml"
        text = path.read_text().replace(
            "  attention: attention\n", f"  attention: attention\n  {name}: {form}\n"
        )
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        (study_folder / "learned.yaml").write_text(text)
        return load_study(study_folder / "learned.yaml")

    return call


def run(study, folder):
    run_study(study, folder, Silent(), ALONE)
    return folder


def trials_of(folder, name):
    with closing(open_run(folder)) as store:
        digest = {each.name: each.digest for each in store.placements()}[name]
        return [t for t in store.trials().values() if t.placement_digest == digest]


def record_of(folder, name):
    with closing(open_run(folder)) as store:
        return next(each for each in store.placements() if each.name == name)


def refused(study_of, form, *changes):
    with pytest.raises(StudyError) as caught:
        study_of(form, *changes)
    return str(caught.value)


def test_an_unknown_scorer_is_named_with_the_nearest(study_of):
    said = refused(study_of, "{scorer: gradiant}")
    assert "learned.yaml:13" in said
    assert "gradiant" in said
    assert "did you mean gradient?" in said


def test_an_unknown_policy_is_named_with_the_nearest(study_of):
    said = refused(study_of, "{policy: salience}")
    assert "did you mean saliency?" in said
    assert "saliency, adalora, attention_entropy" in said


def test_an_option_of_another_policy_is_refused(study_of):
    said = refused(study_of, "{policy: adalora, explore: 0.1}")
    assert "policy adalora has no option explore" in said


def test_an_unknown_key_of_a_form_is_named_with_those_that_it_has(study_of):
    said = refused(study_of, "{scorer: gradient, budgt: 100}")
    assert "did you mean budget?" in said
    said = refused(study_of, "{policy: saliency, intervall: 100}")
    assert "did you mean interval?" in said


def test_a_learned_placement_is_no_baseline(study_of):
    said = refused(study_of, "{scorer: gradient}", ("baseline: full", "baseline: learned"))
    assert "the baseline is a rule" in said


def test_a_policy_needs_the_packed_engine(study_of):
    said = refused(study_of, MOVES, ("seeds: 2", "seeds: 2\nengine: reference"))
    assert "needs the packed engine" in said


@pytest.mark.parametrize("budget", [1, 10**9])
@pytest.mark.parametrize("form", ["scorer: uniform", "policy: saliency"])
def test_a_budget_that_no_placement_can_have_is_refused(study_of, anatomy, form, budget):
    study = study_of(f"{{{form}, budget: {budget}}}")
    with pytest.raises(StudyError, match=r"learned\.yaml:13: placements\.learned: .*largest|small"):
        resolve_study(study, anatomy)


def test_a_schedule_that_is_longer_than_the_training_is_refused(study_of, tmp_path):
    study = study_of("{policy: saliency, warmup: 2, final: 2}")
    with pytest.raises(StudyError, match="the schedule is longer than the training"):
        run(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_study_is_does_not_change_where_nothing_is_learned(study_folder, study_of):
    plain = load_study(study_folder / "study.yaml")
    assert plain.to_json()["placements"]["full"] == {"rule": "all", "match": "parameters"}
    first, second = study_of("{scorer: gradient}"), study_of("{scorer: gradient, rows: 16}")
    assert first.digest != second.digest


def test_a_hybrid_keeps_its_budget_and_is_trained_as_it_was_allocated(study_of, tmp_path):
    folder = run(study_of("{scorer: gradient, rows: 8}"), tmp_path / "run")
    record, baseline = record_of(folder, "learned"), record_of(folder, "full")
    allocation = record.learned["allocation"]
    assert allocation["budget"]["amount"] == baseline.trainable_parameters
    assert record.trainable_parameters == allocation["used"]
    assert record.trainable_parameters <= baseline.trainable_parameters
    assert len({adapter["rank"] for adapter in record.adapters}) > 1
    assert record.rule == "gradient over all"
    trials = trials_of(folder, "learned")
    assert [trial.status for trial in trials] == ["done", "done"]
    assert all(trial.trajectory is None for trial in trials)
    config = json.loads((folder / trials[0].adapter / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == len(record.adapters)


def test_limits_are_those_of_allocate(study_of, anatomy):
    form = (
        "{scorer: gradient, ranks: [0, 2, 4], ties: ['attention.qkv, attention.o'], "
        "tie_layers: [feed_forward.up], caps: {feed_forward: 900}, max_sites: 9}"
    )
    study = study_of(form)
    limits = study.placements["learned"].hybrid.constraints
    assert (limits.ranks, limits.max_sites) == ((0, 2, 4), 9)
    assert limits.ties == (
        Tie(rule="attention.qkv | attention.o"),
        Tie(rule="feed_forward.up", across_layers=True),
    )
    assert limits.caps == (Cap(rule="feed_forward", most=Budget(amount=900)),)
    resolve_study(study, anatomy)
    assert study.digest != study_of("{scorer: gradient}").digest


def test_limits_are_kept(study_of, tmp_path):
    form = "{scorer: parameters, budget: 1000, ties: [attention], max_sites: 4, ranks: [0, 1, 3]}"
    record = record_of(run(study_of(form), tmp_path / "run"), "learned")
    ranks = {each["path"]: each["rank"] for each in record.adapters}
    assert 0 < len(ranks) <= 4
    assert set(ranks.values()) <= {1, 3}
    for layer in range(3):
        block = f"transformer.h.{layer}.attn"
        assert ranks.get(f"{block}.c_attn") == ranks.get(f"{block}.c_proj")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{scorer: gradient, ties: [atention]}", "did you mean attention?"),
        ("{scorer: gradient, caps: {atention: 5}}", "did you mean attention?"),
        ("{scorer: gradient, caps: {attention: 0}}", "an integer from 1 up is needed"),
        ("{scorer: gradient, ranks: [4, 4]}", "4 is given twice"),
        ("{scorer: gradient, ranks: [0]}", "the ranks [0] hold none above 0"),
        (
            "{scorer: gradient, max_sites: 3, solver: proportional}",
            "the proportional rule keeps within no other limit, and a number of sites are given",
        ),
    ],
)
def test_limits_that_cannot_be_are_refused_with_their_line(study_of, form, said):
    found = refused(study_of, form)
    assert "learned.yaml:13" in found
    assert said in found


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{scorer: depth, max_sites: 1}", "above the largest allocation"),
        ("{scorer: depth, caps: {all: 500}}", "above the largest allocation"),
        ("{scorer: depth, caps: {router: 50}}", "the cap router: selects no site"),
    ],
)
def test_limits_that_no_budget_of_the_study_fits_are_refused(study_of, anatomy, form, said):
    with pytest.raises(StudyError, match=r"learned\.yaml:13: placements\.learned: ") as caught:
        resolve_study(study_of(form), anatomy)
    assert said in str(caught.value)


def test_the_cost_of_scoring_is_charged_to_the_placement(study_of, tmp_path):
    folder = run(study_of("{scorer: gradient, rows: 8}"), tmp_path / "run")
    with closing(open_run(folder)) as store:
        found = results(store)["placements"]
    seconds = found["learned"]["selection_seconds"]
    assert seconds > 0
    assert found["learned"]["learned"]["scores"]["cost"]["num_backwards"] == 8
    assert found["full"]["selection_seconds"] is None


def test_a_run_that_goes_on_takes_the_scores_that_it_has(study_of, tmp_path, monkeypatch):
    study = study_of("{scorer: gradient, rows: 8}")
    folder = run(study, tmp_path / "run")
    before = record_of(folder, "learned")

    def fails(*_):
        raise AssertionError("scored again")

    monkeypatch.setattr(learning, "score_by", fails)
    run(study, folder)
    assert record_of(folder, "learned") == before


def test_a_hybrid_equals_the_file_of_its_ranks(study_of, study_folder, tmp_path):
    folder = run(study_of("{scorer: gradient, rows: 8}"), tmp_path / "run")
    record = record_of(folder, "learned")
    written = {"placement": record.adapters}
    (study_folder / "ranks.json").write_text(json.dumps(written))
    again = run(study_of("{rule: 'file(ranks.json)', match: none}"), tmp_path / "again")
    assert record_of(again, "learned").digest == record.digest


def test_a_placement_that_moves_ends_within_its_budget(study_of, tmp_path):
    folder = run(study_of(MOVES, LONGER), tmp_path / "run")
    record, baseline = record_of(folder, "learned"), record_of(folder, "full")
    assert record.budget == baseline.trainable_parameters
    assert record.trainable_parameters == sum(record.families.values()) > record.budget
    for trial in trials_of(folder, "learned"):
        assert trial.status == "done"
        assert trial.engine == "packed"
        told = trial.trajectory
        assert told["parameters"][0] > baseline.trainable_parameters
        assert told["parameters"][-1] <= baseline.trainable_parameters
        assert all(p <= b for p, b in zip(told["parameters"], told["budgets"], strict=True))
        assert told["decisions"]
        ranks = {each["path"]: each["rank"] for each in trial.final}
        assert ranks == {p: r[-1] for p, r in told["ranks"].items() if r[-1]}


def test_adapters_of_a_trial_that_moved_are_ordinary_lora(study_of, base, anatomy, tmp_path):
    folder = run(study_of(MOVES, LONGER), tmp_path / "run")
    trial = trials_of(folder, "learned")[0]
    placement = Placement.from_json({"placement": trial.final}, anatomy)
    with saved_adapters(base, folder / trial.adapter, placement) as model:
        assert {n.split(".")[-2] for n, _ in model.named_parameters() if "lora_" in n} == {
            "default"
        }
        assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()
    # The scale of every site is the study's, 4 / 2, whatever became of its rank.
    assert {each["alpha"] / each["rank"] for each in trial.final} == {2.0}


@pytest.mark.parametrize("policy", ["saliency", "adalora"])
def test_a_run_that_was_killed_and_repeated_gives_the_same_numbers(
    study_of, tmp_path, monkeypatch, policy
):
    study = study_of(MOVES.replace("saliency", policy), LONGER)
    whole = run(study, tmp_path / "whole")
    from loratlas.study import training

    class Killed(BaseException):
        pass

    def killed(*_args, **_options):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(training.Store, "add_trials", killed)
        with pytest.raises(Killed):
            run(study, tmp_path / "killed")
    run(study, tmp_path / "killed")
    for name in ("full", "learned"):
        first = {t.digest: t for t in trials_of(whole, name)}
        second = {t.digest: t for t in trials_of(tmp_path / "killed", name)}
        assert first.keys() == second.keys()
        for digest, trial in first.items():
            other = second[digest]
            assert trial.losses == other.losses
            assert trial.trajectory == other.trajectory
            assert trial.final == other.final


def test_still_trials_have_the_same_numbers_beside_one_that_moves(study_of, study_folder, tmp_path):
    with_it = run(study_of(MOVES, LONGER), tmp_path / "with")
    plain = parse_study(
        (study_folder / "study.yaml").read_text().replace(*LONGER), study_folder / "study.yaml"
    )
    without = run(plain, tmp_path / "without")
    first = {t.digest: t.losses for t in trials_of(with_it, "full")}
    assert first == {t.digest: t.losses for t in trials_of(without, "full")}


def test_the_report_shows_how_placements_moved_and_what_scores_chose(study_of, tmp_path):
    study = study_of(f"{MOVES}\n  scored: {{scorer: gradient, rows: 8}}", LONGER, name="moving")
    folder = run(study, tmp_path / "run")
    with closing(open_run(folder)) as store:
        (found,) = moved(store)
        sections = {each.name: each for each in contents(gather(folder, store))}
    assert found.ranks.shape == (2, len(found.paths), len(found.steps))
    assert found.steps[0] == 0
    shown = sections["moved"].figures[0].charts[0].spec["data"]["values"]
    assert {row["site"] for row in shown} == set(found.paths)
    assert max(row["until"] for row in shown) == 12
    assert [row[0].text for row in sections["moved"].tables[0].rows] == ["moving", "moving"]
    assert sections["scored"].tables[0].rows[0][1].text == "gradient"


def test_attention_entropy_is_refused_where_no_site_makes_queries(study_of, anatomy):
    study = study_of("{policy: attention_entropy}")
    with pytest.raises(StudyError, match="no site that makes queries or keys alone"):
        resolve_study(study, anatomy)


def test_a_plan_shows_a_learned_placement_with_its_most_parameters(study_of):
    study = study_of(MOVES, LONGER)
    anatomy = read_anatomy(study.model)
    found = {each.name: each for each in resolve_study(study, anatomy)}
    assert found["learned"].trainable_parameters == found["full"].trainable_parameters
    start = found["learned"].placement.trainable_parameters
    assert start == pytest.approx(2 * found["full"].trainable_parameters, rel=0.1)
    still = replace(found["learned"], moving=None)
    assert still.digest != found["learned"].digest


def test_results_show_what_trials_ended_with_and_the_budget_beside_it(study_of, tmp_path):
    folder = run(study_of(MOVES, LONGER), tmp_path / "run")
    ended = [trial.ended_parameters for trial in trials_of(folder, "learned")]
    with closing(open_run(folder)) as store:
        found = results(store)["placements"]["learned"]
        facts = gather(folder, store)
    count, families = found["trainable_parameters"], found["families"]
    assert found["trainable_parameters_range"] == [min(ended), max(ended)]
    assert sum(families.values()) == count
    assert abs(count - sum(ended) / len(ended)) <= len(families) / 2  # each family is rounded
    assert found["learned"]["target_parameters"] >= max(ended)
    rows = {row["seed"]: row for row in trial_rows(facts) if row["placement"] == "learned"}
    assert sorted(row["trainable_parameters"] for row in rows.values()) == sorted(ended)
    (row,) = [row for row in result_rows(facts) if row["placement"] == "learned"]
    assert (row["trainable_parameters"], row["budget"]) == (
        count, found["learned"]["target_parameters"],
    )  # fmt: skip
    (line,) = [line for line in notes(results_of(folder)) if line.startswith("learned: ")]
    assert line == (
        f"learned: {min(ended):,} to {max(ended):,} parameters in the end, its budget is "
        f"{row['budget']:,}."
    )


def results_of(folder):
    with closing(open_run(folder)) as store:
        return results(store)


def test_what_a_placement_that_moves_costs_alone_is_not_known(study_of, tmp_path):
    folder = run(study_of(MOVES, LONGER), tmp_path / "run")
    probe = Probe(
        seconds_per_step=0.5, tokens_per_second=80.0, peak_memory_bytes=7, num_steps=6, engine="e"
    )
    with closing(Store(folder / FILE_NAME, writable=True)) as store:
        for placement in store.placements():  # earlier versions probed them all
            store.set_probe(placement.digest, probe)
        found, costs = results(store)["placements"], costs_of(store)
        said = recommendation_notes(recommendation(recommend(arms_of(store), costs), "tiny"))
    assert found["full"]["seconds"] == costs["full"].seconds == 6.0
    for name in ("seconds", "seconds_per_step", "tokens_per_second", "peak_memory_bytes"):
        assert found["learned"][name] is None
    assert costs["learned"].seconds is costs["learned"].memory_bytes is None
    assert said[-1].startswith("Memory and seconds are not known of learned: ")


def test_what_the_last_step_leaves_is_drawn(study_of, tmp_path):
    folder = run(study_of(MOVES.replace("final: 2", "final: 0"), LONGER), tmp_path / "run")
    with closing(open_run(folder)) as store:
        (found,) = moved(store)
        (section,) = [each for each in contents(gather(folder, store)) if each.name == "moved"]
    assert found.steps[-1] == 12
    chart = section.figures[0].charts[0].spec
    last = [row for row in chart["data"]["values"] if row["step"] == 12]
    left = dict(zip(found.paths, found.mean_ranks[:, -1], strict=True))
    assert {row["site"]: row["rank"] for row in last} == {p: r for p, r in left.items() if r}
    assert {row["until"] for row in last} == {13}
    assert '"domain": [0, 13]' in json.dumps(chart)


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        (
            MOVES,
            ("{steps: 3,", "{base_dropout: 0.1, steps: 12,"),
            "a placement that moves needs the packed engine, which does not serve it: the base's "
            "own dropout is active",
        ),
        (
            MOVES.replace("{", "{sites: 'all | embedding', "),
            LONGER,
            "a placement that moves needs the packed engine, which does not serve it: "
            "transformer.wte is no plain linear map",
        ),
        (
            "{scorer: gradient, rows: 99}",
            LONGER,
            "99 rows are to be scored, and there are 32 training rows; allowed: 2 to 32",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_once_and_before_anything_is_made(
    study_of, tmp_path, monkeypatch, form, change, said
):
    def fails(*_):
        raise AssertionError("scored before it was refused")

    monkeypatch.setattr(learning, "score_by", fails)
    study = study_of(form, change)
    with pytest.raises(StudyError) as caught:
        run(study, tmp_path / "run")
    assert str(caught.value).startswith(f"{study.path}:13: placements.learned: {said}")
    assert str(caught.value).count("learned.yaml") == 1
    assert not (tmp_path / "run").exists()


def test_a_request_that_is_found_wrong_while_scoring_names_its_line(
    study_of, tmp_path, monkeypatch
):
    def fails(*_):
        raise DataError("these rows cannot be read so")

    monkeypatch.setattr(learning, "score_by", fails)
    with pytest.raises(StudyError, match=r"learned\.yaml:13: placements\.learned: these rows"):
        run(study_of("{scorer: gradient, rows: 8}"), tmp_path / "run")
