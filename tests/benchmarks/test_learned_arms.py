"""The studies of learned placements, and the benchmark that retrains where policies ended."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from loratlas.analysis.summary import results
from loratlas.anatomy.read import read
from loratlas.measure.scores import SplitScore
from loratlas.study.folder import open_run
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.resolve import resolve_study
from loratlas.study.spec import load_study
from loratlas.study.store import FILE_NAME, Store

# PEFT asks transformers 5.23 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

STUDIES = Path(__file__).parents[2] / "studies"
SCORED = {
    "random": "random",
    "inverted": "inverted:gradient",
    **{
        name: name
        for name in (
            "gradient", "gradient_normalised", "gradient_spectrum", "lora_probe", "plop", "eva",
            "para",
        )
    },
}  # fmt: skip
PROSE = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 256, "n_layer": 8,
    "n_head": 8, "n_positions": 256, "vocab_size": 8192,
}  # fmt: skip


def arms_of(study, anatomy):
    """Resolve a study; return its placements by name, and check their parameters."""
    arms = {arm.name: arm for arm in resolve_study(study, anatomy)}
    full = arms["uniform"].placement.trainable_parameters
    for name, arm in arms.items():
        # Ranks are whole numbers: one more at every site of a kind of block is a tenth at rank 6.
        count = arm.trainable_parameters
        assert count == pytest.approx(full, rel=0.07), name
        assert arm.matched_to in (None, full)
    return arms


@pytest.mark.parametrize("task", ["facts", "format"])
def test_the_bundled_studies_have_every_arm_at_matched_parameters(task):
    study = load_study(STUDIES / f"learned-{task}.yaml")
    arms = arms_of(study, read("demo:gpt2"))
    assert study.baseline == "uniform"
    assert (study.seeds, study.sweep_seeds) == ((0, 1, 2, 3, 4, 5), 2)
    methods = {n: a.hybrid.scoring.method for n, a in arms.items() if a.hybrid is not None}
    assert methods == SCORED
    policies = [a.moving.spec.name for a in arms.values() if a.moving is not None]
    assert policies == ["saliency", "adalora"]
    assert set(arms) == {"uniform", "attention", "feed_forward", *SCORED, *policies}


def test_the_two_bundled_studies_differ_in_their_task_alone():
    facts, formats = (load_study(STUDIES / f"learned-{t}.yaml") for t in ("facts", "format"))
    assert facts.to_json()["data"].pop("source") == "demo:facts"
    one, other = facts.to_json(), formats.to_json()
    one["data"].pop("source")
    other["data"].pop("source")
    assert one == other


def test_the_prose_study_has_three_learned_arms_that_the_bundled_studies_have(tmp_path):
    study = load_study(STUDIES / "learned-prose.yaml")
    (tmp_path / "config.json").write_text(json.dumps(PROSE))
    arms = arms_of(study, read(tmp_path, cache=False))
    learned = {n for n, a in arms.items() if a.hybrid is not None or a.moving is not None}
    assert len(learned) == 3
    assert learned < {*SCORED, "saliency", "adalora"} - {"random", "inverted"}
    assert set(arms) - learned == {"uniform", "attention", "feed_forward"}


@pytest.fixture
def learned_study(study_folder):
    """The tiny study with a hybrid and a policy, and steps for the policy to move in."""
    file = study_folder / "study.yaml"
    text = file.read_text().replace("  attention: attention\n", "  scored: {scorer: gradient}\n")
    text = text.replace("\nbaseline:", "\n  moving: {policy: saliency, interval: 2}\nbaseline:")
    file.write_text(text.replace("steps: 3", "steps: 16"))
    return file


def test_where_policies_ended_is_trained_from_scratch(benchmarks, learned_study, tmp_path, capsys):
    out, figures = tmp_path / "runs", tmp_path / "figures.json"
    arguments = ["--study", str(learned_study), "--out", str(out), "--json", str(figures)]
    benchmarks.learned.main([*arguments, "--threads", "1"])
    said = capsys.readouterr().out
    with closing(open_run(out / "tiny")) as first, closing(open_run(out / "tiny-retrained")) as two:
        (ended,) = benchmarks.learned.final_placements(first, 0).values()
        (again,) = [each for each in two.placements() if each.name == "moving retrained"]
        assert again.adapters == ended
        (told,) = json.loads(figures.read_text())
        assert told["results"] == json.loads(json.dumps(results(first)))
        assert told["retrained"] == json.loads(json.dumps(results(two)))
        # The baseline is one trial in both studies: its figures are equal.
        assert (
            results(first)["placements"]["full"]["losses"]
            == (results(two)["placements"]["full"]["losses"])
        )
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:6]] == [
        "full", "scored", "moving", "moving retrained",
    ]  # fmt: skip
    table, contrasts = rows[:6], rows[6:]
    assert len({len(row) for row in table}) == 1
    assert [row[0].strip("| ") for row in contrasts[2:]] == ["moving less moving retrained"]
    (contrast,) = told["contrasts"]
    arms = [figures_of["placements"][name] for figures_of, name in (
        (told["results"], "moving"), (told["retrained"], "moving retrained"),
    )]  # fmt: skip
    assert contrast["difference"] == pytest.approx(arms[0]["loss"] - arms[1]["loss"])
    low, high = contrast["interval"]
    assert low < contrast["difference"] < high
    assert 0 < contrast["p"] <= 1
    assert [row[1] for row in table[2:]] == ["rule", "scores", "a policy", "rule"]
    assert "Better than the baseline:" in said
    assert "nan" not in said.lower()


@pytest.fixture
def made_run():
    """Writes a run folder whose arms, all but the first learned, have losses that are drawn."""

    def call(folder, names):
        folder.mkdir()
        chance, ones = np.random.default_rng(0), np.ones(12, dtype=np.int64)
        with closing(Store(folder / FILE_NAME, writable=True)) as store:
            store.set_meta("study", {"baseline": names[0]})
            store.set_meta("chosen", dict.fromkeys(names, 1e-3))
            store.set_placements([_placement(name, is_rule=name == names[0]) for name in names])
            for at, name in enumerate(names):
                for seed in range(3):
                    nll = 2 + 0.1 * at + chance.normal(0, 0.1, 12)
                    score = SplitScore(
                        row=np.arange(12), nll=nll, num_tokens=ones, num_bytes=ones,
                        num_correct=ones,
                    )  # fmt: skip
                    record = TrialRecord(
                        digest=f"{name} {seed}", placement_digest=name, learning_rate=1e-3,
                        seed=seed, status="done", engine="packed",
                    )  # fmt: skip
                    store.add_trial(record, {}, {"test": score})
        return folder

    return call


def _placement(name, *, is_rule):
    learned = {"kind": "hybrid", "scores": {"method": name, "cost": {"seconds": 1.0}}}
    return PlacementRecord(
        name=name, digest=name, rule=name, trainable_parameters=10, matched_to=None, families={},
        adapters=[], warnings=[], learned=None if is_rule else learned,
    )  # fmt: skip


def test_a_scorer_is_held_against_itself_upside_down(benchmarks, made_run, tmp_path):
    names = ("full", "gradient", "inverted")
    with closing(open_run(made_run(tmp_path / "run", names))) as store:
        (found,) = benchmarks.learned.contrasts_within(store)
        losses = {n: each["loss"] for n, each in results(store)["placements"].items()}
    assert (found.placement, found.baseline) == ("gradient", "inverted")
    assert found.estimate.value == pytest.approx(losses["gradient"] - losses["inverted"])
    with closing(open_run(made_run(tmp_path / "other", ("full", "gradient")))) as store:
        assert list(benchmarks.learned.contrasts_within(store)) == []


def test_the_command_of_a_page_can_be_given_again(benchmarks):
    given = ["--study", "studies/learned-format.yaml", "--study", "a b.yaml", "--quick"]
    options = benchmarks.studies.options_of("about", given, studies=True)
    command = benchmarks.learned.command_of(options)
    assert command == (
        "python benchmarks/learned.py --study studies/learned-format.yaml --study 'a b.yaml' "
        "--quick --write"
    )


def arm(loss, learned=None):
    return {"loss": loss, "learned": learned}


def scored(method, loss):
    return arm(loss, {"kind": "hybrid", "scores": {"method": method}})


def moving(loss):
    return arm(loss, {"kind": "dynamic"})


def test_arms_are_chosen_by_their_mean_rank_over_the_studies(benchmarks):
    one = {
        "full": arm(0.1), "best": scored("plop", 1.0), "good": moving(2.0),
        "chance": scored("random", 0.2), "upside": scored("inverted:gradient", 0.3),
        "tied": scored("eva", 2.0), "alone": scored("para", 0.5),
    }  # fmt: skip
    two = {
        "full": arm(9.0), "tied": scored("eva", 5.0), "best": scored("plop", 3.0),
        "good": moving(4.0), "chance": scored("random", 1.0), "upside": scored("inverted:eva", 1.0),
    }  # fmt: skip
    found = benchmarks.chosen_arms.by_mean_rank([{"placements": one}, {"placements": two}])
    assert [(each.name, each.ranks, each.mean) for each in found] == [
        ("best", (1, 1), 1), ("good", (2.5, 2), 2.25), ("tied", (2.5, 3), 2.75),
    ]  # fmt: skip
    two["good"]["loss"] = None
    with pytest.raises(ValueError, match="no loss is known of good"):
        benchmarks.chosen_arms.by_mean_rank([{"placements": one}, {"placements": two}])


def test_the_chosen_arms_are_read_from_run_folders(benchmarks, made_run, tmp_path, capsys):
    folders = [str(made_run(tmp_path / name, ("full", "plop"))) for name in ("one", "two")]
    with pytest.raises(SystemExit) as end:
        benchmarks.chosen_arms.main([str(tmp_path)])
    assert "no run here" in str(end.value.code)
    benchmarks.chosen_arms.main(folders)
    assert capsys.readouterr().out.endswith("Chosen: plop.\n")


def test_verdicts_are_told_as_they_are(benchmarks):
    told = benchmarks.learned.verdicts
    contrasts = [
        {"placement": "a", "verdict": "cannot tell"},
        {"placement": "b", "verdict": "better"},
        {"placement": "c", "verdict": "worse"},
        {"placement": "d", "verdict": "cannot tell"},
    ]
    assert told({"contrasts": contrasts}) == (
        "Better than the baseline: b. Not better: cannot tell: a, d; worse: c."
    )
    assert told({"contrasts": contrasts[2:]}).startswith("Better than the baseline: none.")


def test_a_derived_study_keeps_what_is_not_changed(benchmarks, study_folder, tmp_path):
    file = study_folder / "study.yaml"
    changes = {"name": "other", "training": {"steps": 9}, "baseline": None, "seeds": 3}
    found = benchmarks.studies.derived(file, changes, tmp_path / "deep" / "changed.yaml")
    before = load_study(file)
    assert (found.name, found.seeds, found.training.steps) == ("other", (0, 1, 2), 9)
    assert found.training.batch == before.training.batch
    assert found.data.source == str(study_folder / "rows.jsonl")
    assert found.model == before.model
    assert {n: p.rule for n, p in found.placements.items()} == {
        "full": "all", "attention": "attention",
    }  # fmt: skip


def test_what_is_wrong_ends_the_benchmark_with_its_reason(benchmarks, study_folder, tmp_path):
    file = study_folder / "study.yaml"
    file.write_text(file.read_text().replace("attention: attention", "attention: atention"))
    with pytest.raises(SystemExit) as end:
        benchmarks.learned.main(["--study", str(file), "--out", str(tmp_path / "runs")])
    assert "did you mean attention" in str(end.value.code)


def test_a_page_is_written_where_it_is_asked_for(benchmarks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.studies, "RESULTS", tmp_path)
    options = benchmarks.studies.options_of("about", ["--write"], studies=False)
    benchmarks.studies.publish(options, lambda: ([("one", "# One\n")], []))
    assert (tmp_path / "one.md").read_text() == "# One\n"
    assert capsys.readouterr().out == "# One\n\n"
