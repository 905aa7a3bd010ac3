"""What a method sees of a study: training rows alone, the sites that are asked for, its options."""

import re
from dataclasses import replace

import pytest

import families
from loratlas.errors import PlacementError, RequestError, RuleError, StudyError
from loratlas.score.methods import scorer
from loratlas.score.names import METHODS
from loratlas.score.sample import as_read, sample_of
from loratlas.study.progress import Silent
from loratlas.study.request import read_data
from loratlas.study.score_study import described_methods, load_subject, score_study
from loratlas.study.scoring import choose_rows, subject_of
from loratlas.study.scoring_options import BRUTE_FORCE, ScoringOptions
from loratlas.study.spec import load_study
from loratlas.train.packed.windows import windows
from loratlas.train.randomness import row_order


@pytest.fixture
def study(study_folder):
    return load_study(study_folder / "study.yaml")


def test_rows_are_the_first_that_a_trial_reads(study, anatomy, prepared, base):
    options = ScoringOptions(method="gradient", rows=5, seed=3)
    subject = subject_of(study, anatomy, prepared, base, options)
    order = row_order(3, 0, 32)[:5]
    assert [row.row for row in subject.rows] == [prepared.train.rows[n].row for n in order]
    assert (subject.seed, subject.batch, subject.max_rank) == (3, 4, 8)
    assert (subject.lora, subject.training) == (study.lora, study.training)


def test_a_masked_model_is_scored_with_the_masks_of_a_trials_first_epoch(tmp_path):
    """An authority: the rows that the packed engine trains on."""
    families.write("bert", tmp_path)
    (tmp_path / "rows.jsonl").write_text(families.prompt_rows(30))
    (tmp_path / "study.yaml").write_text(
        f"name: x\nmodel: {tmp_path}\n"
        "data: {source: rows.jsonl, format: prompt_completion, train: 16, validation: 4, test: 4, "
        "max_length: 48}\nplacements: {full: all}\ntraining: {steps: 2, batch: 4}\n"
    )
    study = load_study(tmp_path / "study.yaml")
    subject = load_subject(study, ScoringOptions(method="gradient", rows=6, seed=3), Silent())
    data = read_data(study)
    trial = windows(data.train.rows, study.training, seed=3, masking=data.masking)
    wanted = [*next(trial), *next(trial)][:6]
    gradients = sample_of(subject).rows
    inputs = [as_read(subject, number) for number in range(6)]
    for seen in (gradients, inputs):
        for row, other in zip(seen, wanted, strict=True):
            assert row.masked.tolist() == other.masked.tolist()
            assert row.scored.tolist() == other.scored.tolist()


def test_no_row_of_another_split_is_seen(study, anatomy, prepared, base):
    subject = subject_of(study, anatomy, prepared, base, ScoringOptions(method="para"))
    allowed = {row.row for row in prepared.train.rows}
    others = {row.row for split in (prepared.validation, prepared.test) for row in split.rows}
    assert not allowed & others
    assert {row.row for row in subject.rows} == allowed


@pytest.mark.parametrize(
    ("method", "train", "count"),
    [("gradient", 32, 32), ("gradient", 20, 20), ("para", 32, 32), ("uniform", 32, 0)],
)
def test_rows_where_nothing_is_said(study, prepared, method, train, count):
    data = replace(prepared, train=replace(prepared.train, rows=prepared.train.rows[:train]))
    found = choose_rows(study, data, scorer(method), ScoringOptions(method=method))
    assert len(found) == count


def test_a_method_that_reads_takes_few_of_many(study, prepared):
    many = replace(prepared, train=replace(prepared.train, rows=prepared.train.rows * 3))
    options = ScoringOptions(method="plop")
    assert len(choose_rows(study, many, scorer("plop"), options)) == 32
    assert len(choose_rows(study, many, scorer("para"), options)) == 96


@pytest.mark.parametrize("rows", [0, -1, 1, 33])
def test_as_many_rows_as_there_cannot_be(study, prepared, rows):
    options = ScoringOptions(method="gradient", rows=rows)
    with pytest.raises(StudyError) as caught:
        choose_rows(study, prepared, scorer("gradient"), options)
    assert str(caught.value) == (
        f"{study.path}: {rows} rows are to be scored, and there are 32 training rows; allowed: 2 "
        "to 32"
    )


def test_sites_are_those_of_the_rule(study, anatomy, prepared, base):
    options = ScoringOptions(method="depth", sites="attention.o @ last(2)")
    subject = subject_of(study, anatomy, prepared, base, options)
    assert [site.path for site in subject.sites] == [
        "transformer.h.1.attn.c_proj",
        "transformer.h.2.attn.c_proj",
    ]


def test_a_new_classification_head_is_left_out(study, anatomy, prepared, base):
    headed = replace(base, head=("transformer.h.0",))
    with pytest.raises(StudyError, match=r"^transformer\.h\.0\.\S+ belongs to the new classific"):
        subject_of(study, anatomy, prepared, headed, ScoringOptions(method="depth"))


def test_a_study_is_scored_from_its_file(study):
    options = ScoringOptions(method="para", rows=8, options={"rank": 3}, sites="attention")
    table = score_study(study, options, Silent())
    assert table.settings["options"] == {"rank": 3}
    assert table.settings["rows"] == 8
    assert len(table.scores) == 6
    assert table.notes[0] == "trained at rank 3 with rate 0.01"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": "parra"}, RequestError, "parra: there is no such method (did you mean para?)"),
        (
            {"method": "depth", "sites": "cross_attention"},
            PlacementError,
            "the sites to score: the rule cross_attention selects no site.",
        ),
        ({"method": "depth", "sites": "attention &"}, RuleError, ""),
        ({"method": "gradient", "rows": 99}, StudyError, ""),
    ],
)
def test_wrong_options_are_said_before_weights_are_loaded(study, monkeypatch, options, error, said):
    def never(*_arguments, **_more):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("loratlas.study.score_study.load_base", never)
    with pytest.raises(error, match=f"^{re.escape(said)}"):
        load_subject(study, ScoringOptions(**options), Silent())


def test_a_study_without_training_rows(study_folder):
    (study_folder / "rows.jsonl").write_text("")
    with pytest.raises(RequestError, match=r"rows\.jsonl"):
        load_subject(
            load_study(study_folder / "study.yaml"), ScoringOptions(method="depth"), Silent()
        )


def test_every_method_is_described():
    found = {method["name"]: method for method in described_methods()}
    assert list(found) == [*METHODS, *BRUTE_FORCE]
    assert found["plop"]["needs"] == ["rows", "weights"]
    assert found["uniform"]["needs"] == []
    assert all(method["title"] and method["unit"] for method in found.values())
    assert {name: found[name]["cost"] for name in ("gradient", "plop", "depth")} == {
        "gradient": "32 rows forward and backward: about as training on them",
        "plop": "32 rows forward: about half of training on them",
        "depth": "nothing",
    }
    assert found["para"]["cost"].startswith("a trial: ")
    assert found["add_one_in"]["cost"].startswith("a trial for each group, ")
