"""What stands in a report: its formats beside golden files, and runs that say little."""

import csv
import json
from dataclasses import replace

import pytest
from made_up import GOLDEN, GOLDEN_FILES, GOLDEN_SHAPE, Shape, audit, make_run, written
from pyarrow import parquet

from loratlas.report.document.contents import contents
from loratlas.report.document.facts import gather
from loratlas.report.document.sections.answer import headline
from loratlas.report.document.style import VERDICTS
from loratlas.study.store import FILE_NAME, Store


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return written(tmp_path_factory.mktemp("golden") / "run", GOLDEN_SHAPE)


def facts_of(folder, shape=None, **setting):
    shape = Shape(rates=(1e-3,), seeds=2, rows=12) if shape is None else shape
    run = make_run(folder / "run", shape, **setting)
    store = Store(run / FILE_NAME)
    try:
        return gather(run, store)
    finally:
        store.close()


def section(facts, name):
    [found] = [each for each in contents(facts) if each.name == name]
    return found


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_the_words_and_the_tables_are_as_they_were(report, name):
    assert (report / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text("utf-8")


def test_every_picture_that_the_words_show_is_there_in_three_forms(report):
    words = (report / "report.md").read_text(encoding="utf-8")
    shown = {line.split("](")[1][:-5] for line in words.splitlines() if line.startswith("![")}
    assert shown
    for stem in shown:
        for ending, begins in ((".svg", b"<svg"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
            assert (report / f"{stem}{ending}").read_bytes().startswith(begins)


def test_the_data_are_the_same_in_both_forms(report):
    for stem, count in (("results", 3), ("trials", 18)):
        rows = parquet.read_table(report / f"{stem}.parquet").to_pylist()
        with (report / f"{stem}.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(rows) == len(lines) == count
        assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == lines


def test_the_data_of_a_placement_are_its_results(report):
    full, attention, _ = parquet.read_table(report / "results.parquet").to_pylist()
    assert full["difference"] is None
    assert full["loss_low"] < full["loss"] < full["loss_high"]
    assert attention["difference"] == pytest.approx(attention["loss"] - full["loss"])
    assert attention["verdict"] == "worse"


def test_a_report_is_the_same_each_time(tmp_path, report):
    again = written(tmp_path / "run", GOLDEN_SHAPE)
    for name in ("index.html", "figures/forest.svg", "results.csv"):
        assert (again / name).read_bytes() == (report / name).read_bytes()


def with_verdicts(facts, *verdicts):
    names = [f"p{at}" for at in range(len(verdicts))]
    contrasts = [
        {"placement": name, "baseline": "full", "verdict": verdict}
        for name, verdict in zip(names, verdicts, strict=True)
    ]
    return replace(facts, results={**facts.results, "contrasts": contrasts})


def test_the_headline_says_what_holds_and_what_cannot_be_told(tmp_path):
    facts = facts_of(tmp_path)
    assert headline(with_verdicts(facts, "cannot tell", "better", "worse", "better")) == (
        "p1 and p3 are better than full. p2 is worse than full. p0 cannot be told from full."
    )
    assert headline(with_verdicts(facts, "equivalent", "not inferior")) == (
        "p0 is equivalent to full. p1 is not inferior to full."
    )
    assert headline(with_verdicts(facts, *["worse"] * 7)) == (
        "p0, p1, p2, p3 and 3 more are worse than full."
    )
    assert headline(with_verdicts(facts, None)) == "p0 has no verdict against full."


def test_a_claim_stands_before_the_verdicts(tmp_path):
    facts = with_verdicts(facts_of(tmp_path), "worse")
    claim = {
        "placement": "p0",
        "hypothesis": "at least 95% of full",
        "outcome": "contradicted",
        "says": "p0: it keeps less.",
    }
    facts = replace(facts, results={**facts.results, "claims": [claim]})
    assert headline(facts) == ("p0: “at least 95% of full” is contradicted. p0 is worse than full.")


def test_every_verdict_has_a_sign_of_its_own():
    assert len({shape for _, shape, _ in VERDICTS.values()}) == len(VERDICTS)
    assert len({sign for _, _, sign in VERDICTS.values()}) == len(VERDICTS)


def test_without_a_baseline_nothing_is_compared(tmp_path):
    facts = facts_of(tmp_path)
    missing = [{**each, "baseline": None} for each in facts.results["contrasts"]]
    facts = replace(facts, results={**facts.results, "contrasts": missing})
    assert headline(facts) == "No baseline was scored, so no placement is held against another."


def test_one_placement_alone(tmp_path):
    facts = facts_of(tmp_path, Shape(names=("full",), rows=12))
    assert headline(facts) == "There is one placement, so there is nothing to hold it against."
    assert not [each for each in contents(facts) if each.name == "contrasts"]


def test_a_run_without_any_trial_says_so(tmp_path):
    shape = Shape(names=("full", "b"), rates=(1e-3,), seeds=1, errors=("no",), rows=12)
    facts = facts_of(tmp_path, shape, chosen={"full": None, "b": None}, finished=False)
    assert headline(facts) == "No placement has a loss yet, so there is nothing to compare."
    assert section(facts, "answer").words[0].startswith("This run is not complete (1 trial done")


def test_one_seed_has_an_interval_for_that_seed_alone(tmp_path):
    facts = facts_of(tmp_path, Shape(names=("full", "b"), rates=(1e-3,), seeds=1, rows=40))
    [note] = section(facts, "answer").tables[0].notes
    assert "covers new examples, this seed" in note
    assert headline(facts) == "b cannot be told from full."


def test_a_failed_trial_stands_with_its_error(tmp_path):
    shape = Shape(rates=(1e-3,), rows=12, errors=("CUDA out of memory",))
    failed, every = section(facts_of(tmp_path, shape), "trials").tables
    assert cells(failed) == [["feed_forward", "0.001", "0", "failed", "CUDA out of memory"]]
    assert len(every.rows) == 9
    notes = section(facts_of(tmp_path / "again", shape), "answer").tables[0].notes
    assert "feed_forward: 1 of 3 trials diverged or failed; the mean is over the others." in notes


def test_a_run_that_did_not_keep_its_sites_has_the_table_alone(tmp_path):
    found = section(facts_of(tmp_path, anatomy=None), "adapted")
    assert found.figures == ()
    assert [row[4] for row in cells(found.tables[0])] == ["–"] * 3  # noqa: RUF001


def test_the_picture_of_a_placement_has_each_of_its_adapters(tmp_path):
    [figure] = section(facts_of(tmp_path), "adapted").figures
    assert [chart.label for chart in figure.charts] == ["full", "attention", "feed_forward"]
    rows = figure.charts[1].spec["data"]["values"]
    adapted = {(row["layer"], row["role"]) for row in rows if row["rank"] is not None}
    roles = ("attention.q", "attention.o", "feed_forward.up", "feed_forward.down")
    assert adapted == {(layer, role) for layer in "13" for role in roles}
    assert len(rows) == 16  # no placement adapts the head


def test_what_a_group_is_worth_follows_from_the_losses(tmp_path):
    facts = facts_of(tmp_path)
    base = facts.results["base"]["loss"]
    loss = {name: found["loss"] for name, found in facts.results["placements"].items()}
    [by_layer] = [each for each in section(facts, "importance").tables if each.columns]
    assert by_layer.name == "importance-layer"  # every placement adapts all roles alike
    found = {(row[0].text, row[1].text): row[2].value for row in by_layer.rows}
    assert found == pytest.approx(
        {
            ("layers 1, 3", "add one in"): base - loss["attention"],
            ("layers 0, 2", "add one in"): base - loss["feed_forward"],
            ("layers 0, 2", "leave one out"): loss["attention"] - loss["full"],
            ("layers 1, 3", "leave one out"): loss["feed_forward"] - loss["full"],
        }
    )


def test_classes_have_accuracy_and_no_perplexity(tmp_path):
    shape = Shape(rates=(1e-3,), rows=12, classes=("no", "yes"))
    facts = facts_of(tmp_path, shape)
    names = [column.name for column in section(facts, "answer").tables[0].columns]
    assert "macro F1" in names
    assert "perplexity" not in names
    assert section(facts, "audit").words == ("This study is of classes, which have no perplexity.",)


def test_the_rate_at_the_edge_is_flagged(tmp_path):
    found = section(facts_of(tmp_path, Shape(rates=(1e-3, 3e-3), rows=12)), "rates")
    assert found.words[0] == (
        "full: the best learning rate, 0.001, is the lowest of the sweep; a lower one may be "
        "better still."
    )
    states = {row["state"] for row in found.figures[0].charts[0].spec["data"]["values"]}
    assert states == {"tried", "chosen, at the edge"}


def test_one_rate_is_no_sweep(tmp_path):
    assert "rates" not in [each.name for each in contents(facts_of(tmp_path))]


def test_a_curve_is_the_mean_over_seeds_within_their_band(tmp_path):
    facts = facts_of(tmp_path, Shape(rates=(1e-3,), rows=12, steps=200))
    [figure] = section(facts, "curves").figures
    assert "Each point is the mean of 3 steps." in figure.caption
    rows = figure.charts[0].spec["data"]["values"]
    assert [row["step"] for row in rows if row["placement"] == "full"][-2:] == [198, 200]
    assert all(row["low"] <= row["loss"] <= row["high"] for row in rows)
    own = [trial.record.losses for trial in facts.trials if trial.placement == "full"]
    first = sum(sum(losses[:3]) / 3 for losses in own) / len(own)
    assert rows[0]["loss"] == pytest.approx(first, abs=1e-5)


def test_an_audit_in_the_folder_is_told(tmp_path):
    run = make_run(tmp_path / "run", Shape(rates=(1e-3,), rows=12))
    (run / "audit.json").write_text(json.dumps(audit(Shape())))
    store = Store(run / FILE_NAME)
    found = section(gather(run, store), "audit")
    store.close()
    assert found.words == (
        "Of 2 definitions that apply here, labels_not_shifted contradicts the order that the "
        "corpus loss gives, beyond what seeds explain.",
    )
    assert cells(found.tables[0])[1][:2] == ["labels_not_shifted", "3,000"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "audit.json cannot be read: "),
        ("[]", "audit.json is not what loratlas audit --json prints."),
        (
            json.dumps(audit(Shape(name="other"))),
            "audit.json is of the study other, not of made-up.",
        ),
    ],
)
def test_an_audit_that_cannot_be_used_is_named(tmp_path, text, said):
    run = make_run(tmp_path / "run", Shape(rates=(1e-3,), rows=12))
    (run / "audit.json").write_text(text)
    store = Store(run / FILE_NAME)
    found = section(gather(run, store), "audit")
    store.close()
    assert found.words[0].startswith(said)
    assert "loratlas audit RUN --json" in found.words[1]
