"""Cost and agreement of scorers: a real instance, and what is said of costs that are known."""

import json

import pytest

from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.study.spec import load_study
from loratlas.train.base import weights_digest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def few(benchmarks, monkeypatch):
    monkeypatch.setattr(benchmarks.scorers, "methods", lambda: ["gradient", "plop"])
    monkeypatch.setattr(benchmarks.scorers, "_SEEDS", {"seeds": 1})
    monkeypatch.setattr(benchmarks.scorers, "REPEATS", 1)


def test_every_scorer_stands_beside_brute_force(
    benchmarks, few, study_folder, tmp_path, monkeypatch, capsys
):
    out, figures = tmp_path / "runs", tmp_path / "figures.json"
    arguments = ["--study", str(study_folder / "study.yaml"), "--out", str(out), "--threads", "1"]
    benchmarks.scorers.main([*arguments, "--json", str(figures)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert {len(row) for row in rows} == {10}
    methods = [row[0].strip("| ") for row in rows[2:]]
    assert sorted(methods[:4]) == ["add_one_in", "gradient", "leave_one_out", "plop"]
    assert methods[4:] == ["parameters", "depth", "d_in", "random"]
    (told,) = json.loads(figures.read_text())
    assert told["costs"]["gradient"]["num_forwards"] == 32
    # Twelve groups and everything, each trained for 3 steps of 4 rows, and scored on 20 rows as
    # the base is.
    assert told["costs"]["leave_one_out"]["num_forwards"] == 13 * 12 + 14 * 20
    assert told["training_seconds_per_row"] > 0
    own = [a for a in told["agreements"] if a["brute_force"] == a["method"]]
    assert own == []
    assert {a["num_groups"] for a in told["agreements"]} == {12}


def test_training_for_comparison_leaves_the_base_as_it_was(benchmarks, study_folder):
    study = load_study(study_folder / "study.yaml")
    subject = benchmarks.scoring_cost.subject_for(study, "gradient")
    before = weights_digest(subject.base.model)
    assert benchmarks.scoring_cost.training_seconds(subject, 1) > 0
    assert weights_digest(subject.base.model) == before
    assert not subject.base.model.training


def scored(method, rows, seconds):
    return ScoreTable(
        method=method,
        unit="1",
        higher_is_better=True,
        model="m",
        anatomy_digest="d",
        cost=ScoringCost(num_forwards=rows, num_backwards=rows, seconds=seconds),
        scores=(SiteScore(path="a", value=1.0),),
    )


def test_gradient_scorers_that_are_slow_are_named(benchmarks):
    module = benchmarks.scorers
    tables = [
        scored("gradient", 32, 4.7),
        scored("lora_probe", 32, 4.9),
        scored("gradient_spectrum", 64, 9.5),
        scored("plop", 32, 9.0),
        scored("para", 32, 90.0),
    ]
    found = module.Measured(study=None, row_seconds=0.1, tables=tables, truths={}, found={})
    assert module.ratio(tables[0], 0.1) == pytest.approx(4.7 / 3.2)
    # Neither plop, which takes no gradient, nor para, which trains, has a limit.
    assert module.slow(found) == ["lora_probe"]
