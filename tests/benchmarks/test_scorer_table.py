"""Cost and agreement of scorers: a real instance, and what is said of costs that are known."""

import json

import pytest

from loratlas.allocate.table import ScoringCost
from loratlas.score.backward import batches
from loratlas.study.spec import load_study
from loratlas.train.base import weights_digest
from made_tables import table_of

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


def test_training_for_comparison_takes_the_passes_of_a_scorer(
    benchmarks, study_folder, monkeypatch
):
    module = benchmarks.scoring_cost
    subject = module.subject_for(load_study(study_folder / "study.yaml"), "gradient")
    given, real = [], module.fit_pack

    def fit_pack(flow, rows, training, **more):
        given.append((training, more))
        return real(flow, rows, training, **more)

    monkeypatch.setattr(module, "fit_pack", fit_pack)
    module.training_seconds(subject, 1)
    training, more = given[0]
    # Rows are short, so that many go together.
    together = [len(numbers) for numbers in batches(subject.rows, subject.batch)]
    assert training.batch == together[0] > subject.batch
    assert training.steps == -(-len(subject.rows) // together[0])
    assert "masking" in more


def scored(method, rows, seconds):
    cost = ScoringCost(num_forwards=rows, num_backwards=rows, seconds=seconds)
    return table_of({"a": 1.0}, method=method, cost=cost)


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
