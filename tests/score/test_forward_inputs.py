"""What maps read, as it is handed over: padding left out, rows told apart, no hook left."""

import numpy as np
import pytest
import torch
from forward_subjects import family_subject, num_hooks, read_alone
from scored_subjects import subject_of

from loratlas.errors import TrialError
from loratlas.score.inputs import batches, halves, maps_of, read_forward, why_no_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


def gathered(subject):
    """Return, for each site, what it read of each row, and what it read of scored tokens."""
    read = [[[] for _ in subject.rows] for _ in subject.sites]
    scored = [0] * len(subject.sites)

    def visit(call):
        assert len(call.inputs) == len(call.outputs) == len(call.rows) == len(call.scored)
        scored[call.site] += int(call.scored.sum())
        for number in np.unique(call.rows):
            own = torch.from_numpy(call.rows == number)
            read[call.site][number].append(call.inputs[own])

    read_forward(subject, maps_of(subject), visit)
    return [[torch.cat(calls) for calls in rows] for rows in read], scored


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_a_row_is_read_in_company_as_it_is_alone(family, folder):
    subject = family_subject(family, folder / family, batch=4)
    assert len({len(row.ids) for row in subject.rows}) > 1
    read, _ = gathered(subject)
    alone = read_alone(subject)
    for number, site in enumerate(subject.sites):
        for together, own in zip(read[number], alone[site.path], strict=True):
            # Sums over more columns, of which some are hidden, are taken in another order.
            assert torch.allclose(together, own, atol=1e-5), site.path


def test_the_tokens_that_count_are_those_of_the_text_that_is_read(folder):
    subject = family_subject("bart", folder / "bart")
    read, scored = gathered(subject)
    sources = sum(len(row.source) for row in subject.rows)
    targets = sum(len(row.ids) for row in subject.rows)
    assert sources != targets
    for site, rows, count in zip(subject.sites, read, scored, strict=True):
        of_source = site.stack == "encoder" or str(site.role) in (
            "cross_attention.k",
            "cross_attention.v",
        )
        assert sum(map(len, rows)) == (sources if of_source else targets), site.path
        # An encoder's tokens have no targets; here every token of an answer is one.
        assert count == (sources if of_source else sum(r.num_scored for r in subject.rows))


def test_scored_tokens_are_those_with_a_label(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:6])
    _, scored = gathered(subject)
    assert set(scored) == {sum(row.num_scored for row in subject.rows)}


def test_a_masked_model_reads_its_masks(folder):
    subject = family_subject("bert", folder / "bert", rule="attention.q @ first(1)")
    plain = family_subject("bert", folder / "bert", rule="attention.q @ first(1)", masking=None)
    first, again, unmasked = (gathered(each)[0][0] for each in (subject, subject, plain))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, unmasked, strict=True))


def test_no_pass_holds_rows_of_both_halves(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:7], batch=3)
    assert list(batches(subject)) == [[0, 1, 2], [3], [4, 5, 6]]
    assert halves(2) == (range(1), range(1, 2))


@pytest.mark.parametrize("training", [True, False])
def test_the_base_is_as_it_was_whatever_happens(base, anatomy, prepared, training):
    subject = subject_of(base, anatomy, prepared.train.rows[:4])
    before = num_hooks(base.model)
    base.model.train(training)

    def fail(call):
        raise TrialError("no")

    with pytest.raises(TrialError, match="no"):
        read_forward(subject, maps_of(subject), fail)
    assert num_hooks(base.model) == before
    assert base.model.training is training
    base.model.eval()


@pytest.mark.parametrize(
    ("family", "rule", "reason"),
    [
        ("gpt2", "embedding", "transformer.wte is an embedding table, which reads no features"),
        ("mixtral", "all", "experts.gate_up_proj is a bare parameter, and what it reads shows"),
        ("mixtral", "router", "is a bare parameter, and what it reads shows at no module's door"),
        ("mixtral", "attention", None),
        ("bert", "all", None),
    ],
)
def test_whose_inputs_cannot_be_seen(family, rule, reason, folder):
    found = why_no_inputs(family_subject(family, folder / family, rule=rule))
    assert found is None if reason is None else reason in found


def test_a_site_of_another_model_is_named(base, folder):
    other = family_subject("llama", folder / "llama")
    subject = subject_of(base, other.anatomy, other.rows)
    assert why_no_inputs(subject) == "GPT2LMHeadModel has no model.layers.0.self_attn.q_proj"
