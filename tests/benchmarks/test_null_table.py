"""Does the table of nulls say what ``loratlas score --null`` says?"""

import json
import re
from dataclasses import replace

import pytest

from loratlas.allocate.agreement import NullCheck
from loratlas.score.methods import scorer
from loratlas.score.run import score
from loratlas.study.spec import load_study

STUDY = """\
name: tiny
model: {model}
data: {{source: rows.jsonl, format: prompt_completion, train: 6, test: 2, max_length: 24}}
placements: {{full: all}}
training: {{steps: 1}}
"""


@pytest.fixture(scope="module")
def study(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nulls")
    lines = [{"prompt": f"Number {n} is", "completion": f" {n * n} at once."} for n in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "study.yaml").write_text(STUDY.format(model=tiny_folder))
    return load_study(folder / "study.yaml")


@pytest.fixture(scope="module")
def rows(benchmarks, study):
    return list(benchmarks.nulls.rows_of(study, ["gradient", "plop"]))


def test_the_table_says_what_the_tool_says(benchmarks, study, rows):
    (gradient, plop) = rows
    assert list(gradient.nulls) == ["labels", "weights"]
    assert list(plop.nulls) == ["weights"]  # it does not read what is predicted
    subject = benchmarks.scoring_cost.subject_for(study, "gradient")
    for null, found in gradient.nulls.items():
        note = score(scorer("gradient"), subject, [null]).notes[-1]
        apart, among = re.search(r"factor of (\d+\.\d\d).*up to (\d+\.\d\d)", note).groups()
        cell = benchmarks.nulls._check(found.study).strip("*")
        assert cell.startswith(f"{apart} / {among}, τ ")
        assert note.startswith("uninformative") is not found.study.informative


def test_an_untrained_model_is_no_news_to_the_null_of_untrained_models(rows):
    """The tiny model of the tests is untrained, as the null is."""
    assert not rows[0].nulls["weights"].study.informative
    assert not rows[0].nulls["weights"].null.informative


def test_what_is_called_uninformative_is_bold(benchmarks, rows):
    lines = list(benchmarks.nulls.lines(rows))
    assert {len(line) for line in lines} == {len(benchmarks.nulls._HEADERS)}
    plop = lines[1]
    assert plop[:2] == ["tiny", "plop"]
    assert plop[3:6] == ["-", "-", "-"]
    check = rows[1].nulls["weights"].study
    assert plop[6].startswith("**") is not check.informative
    assert plop[2].startswith("**") is bool(rows[1].scores.uninformative)


def test_a_null_that_passes_for_informative_is_named(benchmarks, rows):
    found = rows[0].nulls["labels"]
    apart = NullCheck(distance=2.0, spread=1.0, agreement=0.1, among=0.9)
    passing = replace(rows[0], nulls={"labels": replace(found, null=apart)})
    wanted = [] if found.stand_in.uninformative else ["gradient (tiny, exchanged targets)"]
    assert benchmarks.nulls.missed([passing]) == wanted
    alike = replace(apart, distance=0.9)
    caught = replace(rows[0], nulls={"labels": replace(found, null=alike)})
    assert benchmarks.nulls.missed([caught]) == []


def test_runs_end_to_end(benchmarks, study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.nulls, "methods", lambda: ["gradient"])
    figures = tmp_path / "figures.json"
    file = str(study.path)
    benchmarks.nulls.main(["--study", file, "--json", str(figures), "--threads", "1"])
    said = capsys.readouterr().out
    assert "Of 2 stand-ins without anything to find," in said
    assert "| tiny | gradient |" in said
    assert '"uninformative"' in figures.read_text()
