"""What a null changes of a subject, and what it leaves as it was."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scored_subjects import subject_of

import families
from loratlas.data.batches import prepare
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.data.spec import DataSpec
from loratlas.score.methods import scorer
from loratlas.score.nulls import exchanged, null_subjects, untrained, with_exchanged_targets
from loratlas.score.run import score
from loratlas.study.progress import Silent
from loratlas.study.score_study import load_subject, score_study
from loratlas.study.scoring_options import ScoringOptions
from loratlas.study.spec import load_study, parse_study
from loratlas.train.base import load_base
from loratlas.train.randomness import masks
from loratlas.train.trial import ModelRef


@pytest.fixture
def subject(base, anatomy, prepared):
    return subject_of(base, anatomy, prepared.train.rows[:8])


def targets(rows):
    return np.concatenate([row.ids[row.scored] for row in rows])


def test_a_causal_model_reads_the_same_and_predicts_each_others_targets(subject):
    other = with_exchanged_targets(subject, 0)
    before, after = (subject.base.collator(each.rows) for each in (subject, other))
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(before[name], after[name])
    assert torch.equal(before["labels"] == -100, after["labels"] == -100)
    assert not torch.equal(before["labels"], after["labels"])
    assert sorted(targets(subject.rows)) == sorted(targets(other.rows))
    # Targets cross from row to row.
    assert sorted(targets(subject.rows[:1])) != sorted(targets(other.rows[:1]))


def test_draws_differ_and_a_seed_repeats_them(subject):
    first, second = (with_exchanged_targets(subject, draw) for draw in (0, 1))
    again = with_exchanged_targets(subject, 0)
    assert not np.array_equal(targets(first.rows), targets(second.rows))
    assert np.array_equal(targets(first.rows), targets(again.rows))


def test_an_exchange_of_what_was_exchanged_reads_what_was_read(subject):
    twice = with_exchanged_targets(with_exchanged_targets(subject, 0), 1)
    before, after = (subject.base.collator(each.rows) for each in (subject, twice))
    assert torch.equal(before["input_ids"], after["input_ids"])


def row(number, *, label=None, source=None):
    ids = frozen_ids([number, number + 10, number + 20])
    return TokenizedRow(
        row=number,
        ids=ids,
        scored=frozen_marks([False, label is None, label is None]),
        num_bytes=2,
        label=label,
        source=None if source is None else frozen_ids(source),
    )


def test_classes_change_their_rows():
    rows = [row(number, label=number % 3) for number in range(9)]
    found = exchanged(rows, "classification", np.random.default_rng(0))
    assert sorted(each.label for each in found) == sorted(each.label for each in rows)
    assert [each.label for each in found] != [each.label for each in rows]
    assert all(a.ids is b.ids for a, b in zip(found, rows, strict=True))


def test_sources_change_their_rows():
    rows = [row(number, source=[number, number]) for number in range(9)]
    found = exchanged(rows, "seq2seq", np.random.default_rng(0))
    assert all(a.ids is b.ids for a, b in zip(found, rows, strict=True))
    sources = [each.source[0] for each in found]
    assert sorted(sources) == list(range(9))
    assert sources != list(range(9))


def test_a_masked_model_reads_the_same_masks_and_is_asked_for_other_tokens(subject):
    masking = Masking(share=0.5, mask_id=1, vocabulary=400)
    rows = [row(number) for number in range(9)]
    plain = subject_of(subject.base, subject.anatomy, rows, masking=masking)
    changed = [with_exchanged_targets(plain, draw).masking for draw in (0, 1)]
    before = [masking.corrupt(each, masks(0, 0, n)) for n, each in enumerate(rows)]
    after = [[one.corrupt(each, masks(0, 0, n)) for n, each in enumerate(rows)] for one in changed]
    for a, b in zip(before, after[0], strict=True):
        assert np.array_equal(a.masked, b.masked)
        assert np.array_equal(a.scored, b.scored)
        assert np.array_equal(a.ids[~a.scored], b.ids[~b.scored])
    assert set(targets(after[0])) <= set(targets(rows))
    assert not np.array_equal(targets(before), targets(after[0]))
    assert not np.array_equal(targets(after[0]), targets(after[1]))


def test_an_untrained_model_has_the_shape_and_nothing_else(base):
    state = torch.random.get_rng_state()
    first, second, again = (untrained(base, seed) for seed in (1, 2, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    before, after = base.model.state_dict(), first.model.state_dict()
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    name = "transformer.h.0.attn.c_attn.weight"
    assert float(after[name].std()) == pytest.approx(base.model.config.initializer_range, rel=0.1)
    assert len({base.digest, first.digest, second.digest}) == 3
    assert first.digest == again.digest
    assert first.model is not base.model
    assert not any(parameter.requires_grad for parameter in first.model.parameters())
    assert not first.model.training


def test_untrained_models_are_drawn_one_after_another(subject):
    digests = [each.base.digest for each in null_subjects("weights", subject, 3)]
    assert len({*digests, subject.base.digest}) == 4
    assert digests == [each.base.digest for each in null_subjects("weights", subject, 3)]


def test_the_head_of_a_classifier_is_drawn_as_a_trial_draws_it(tmp_path):
    families.write("gpt2", tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"text": "house {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(30))
    )
    ref = ModelRef(name=str(tmp_path), num_labels=2)
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=torch.device("cpu"))
    data = DataSpec(
        source="rows.jsonl", format="classification", train=12, validation=4, test=4, max_length=32
    )
    rows = prepare(data, base.tokenizer, root=tmp_path, task=base.task).train.rows
    other = untrained(base, 3)
    with torch.no_grad():
        assert torch.isfinite(other.model(**base.collator(rows)).loss)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Facts for the bundled model, which was trained on the world that they are about."""
    text = """\
name: nulls
model: demo:gpt2
data: {source: "demo:facts", format: prompt_completion, max_length: 64}
placements: {full: all}
training: {steps: 1}
"""
    return parse_study(text, tmp_path_factory.mktemp("nulls") / "study.yaml")


def test_a_study_is_informative_and_subjects_without_anything_to_find_are_not(study):
    method = "gradient"
    subject = load_subject(study, ScoringOptions(method=method, rows=24), Silent())
    exchanged_rows = with_exchanged_targets(subject, 99)
    new_model = replace(subject, base=untrained(subject.base, 99))
    assert not score(scorer(method), subject, ["labels", "weights"]).uninformative
    for null, stand_in in (("labels", exchanged_rows), ("weights", new_model)):
        table = score(scorer(method), stand_in, [null])
        # Halves of the rows agree all the same: they cannot show it.
        assert table.agreement > 0.7
        assert len(table.uninformative) == 1


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_other_kinds_of_models_are_held_against_exchanged_targets(family, tmp_path):
    families.write(family, tmp_path)
    (tmp_path / "rows.jsonl").write_text(families.prompt_rows(30))
    (tmp_path / "study.yaml").write_text(
        f"name: x\nmodel: {tmp_path}\n"
        "data: {source: rows.jsonl, format: prompt_completion, train: 12, validation: 4, test: 4, "
        "max_length: 48}\nplacements: {full: all}\ntraining: {steps: 2, batch: 4}\n"
    )
    loaded = load_study(tmp_path / "study.yaml")
    for method in ("gradient", "para"):
        found = score_study(loaded, ScoringOptions(method=method), Silent(), ["labels"])
        said = re.search(
            r"by a factor of (\S+) from the nearest of 6 draws, .* up to (\S+)", (found.notes[-1])
        )
        distance, spread = (float(each.rstrip(".")) for each in said.groups())
        # Draws differ from the study's rows, and from one another: targets are read in each.
        assert distance > 1
        assert spread > 1
        assert bool(found.uninformative) is (distance <= spread)
        assert min(each.value for each in found.scores) > 0
