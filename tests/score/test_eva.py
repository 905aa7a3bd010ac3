"""Explained variance of inputs, and PEFT's own EVA on the same batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from forward_subjects import family_subject, num_hooks, read_alone
from peft import EvaConfig, LoraConfig, get_eva_state_dict
from scored_subjects import subject_of

from loratlas.errors import TrialError
from loratlas.score.eva import Eva, Inputs, peft_ranks, redistributed
from loratlas.score.inputs import maps_of, read_forward
from loratlas.train.base import weights_digest

FAMILIES = ["gpt2", "llama", "qwen3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


def by_path(subject, values):
    return dict(zip((site.path for site in subject.sites), values, strict=True))


def pefts(subject, rho):
    """Return PEFT's directions by path, from two batches that are each read once."""
    base = subject.base
    half = len(subject.rows) // 2
    loader = [base.collator(rows) for rows in (subject.rows[:half], subject.rows[half:])]
    passes = []

    def forward(model, inputs):
        passes.append(inputs)
        return model(**inputs)

    config = LoraConfig(
        r=subject.lora.rank,
        target_modules=[site.path for site in subject.sites],
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=rho),
    )
    # Whatever a direction has turned by, its cosine is above this: the second batch is the last.
    config.eva_config.tau = -2.0
    found = get_eva_state_dict(
        base.model, loader, peft_config=config, forward_fn=forward, show_progress_bar=False
    )
    # The first pass looks for equal inputs.
    assert len(passes) == 3
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [1.0, 2.0])
def test_ranks_and_directions_are_pefts(family, rho, folder):
    subject = family_subject(family, folder / family, batch=5)
    assert len(subject.rows) == 10
    theirs = pefts(subject, rho)
    ours = peft_ranks(subject, rho)
    assert ours == {path: len(directions) for path, directions in theirs.items()}
    assert sum(ours.values()) == subject.lora.rank * len(subject.sites)
    assert rho == 1.0 or len(set(ours.values())) > 1
    inputs = Inputs(replace(subject, max_rank=round(subject.lora.rank * rho)))
    read_forward(subject, maps_of(subject), inputs.add)
    for number, (path, rank) in enumerate(ours.items()):
        own = inputs.spectrum(number).whole.directions[:rank]
        alike = torch.nn.functional.cosine_similarity(own, theirs[path], dim=1)
        # From the second batch on PEFT is in float64, and so draws other test vectors.
        assert rank == 0 or alike.abs().min() > 1 - 1e-4, path


@pytest.mark.parametrize("family", FAMILIES)
def test_with_every_direction_the_curve_is_that_of_all_tokens(family, folder):
    subject = family_subject(family, folder / family, batch=3, max_rank=64)
    found, alone = Eva().measure(subject), read_alone(subject)
    marks = torch.from_numpy(np.concatenate([row.scored for row in subject.rows]))
    for number, site in enumerate(subject.sites):
        tokens = torch.cat(alone[site.path])[marks].double()
        squares = torch.linalg.svdvals(tokens - tokens.mean(0)).square().numpy()
        curve = found.curves[number]
        assert len(curve) == min(64, site.d_in, len(tokens) - 1)
        # float32, decomposed anew with each batch.
        assert curve == pytest.approx((squares / squares.sum())[: len(curve)], abs=2e-5)
        assert found.num_tokens[number] == len(tokens)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_sites_that_read_the_same_are_tied_exactly(family, folder):
    subject = family_subject(family, folder / family)
    found = Eva().measure(subject)
    values = by_path(subject, found.values)
    roles = {}
    for site in subject.sites:
        part = "q k v" if site.role.part in ("q", "k", "v") else str(site.role)
        part = "gate up" if site.role.part in ("gate", "up") else part
        if str(site.role) not in ("cross_attention.k", "cross_attention.v"):
            roles.setdefault((site.stack, site.layer, site.role.family, part), []).append(site)
    assert any(len(same) == 3 for same in roles.values())
    for same in roles.values():
        assert len({values[site.path] for site in same}) == 1
    assert len({values[same[0].path] for same in roles.values()}) == len(roles)
    assert "read what another one reads, as q, k and v do" in found.notes[0]


def test_a_decoder_reads_one_encoder_in_all_its_layers(folder):
    subject = family_subject("bart", folder / "bart", rule="cross_attention.k | cross_attention.v")
    assert len(set(Eva().measure(subject).values)) == 1


def test_a_value_is_the_sum_of_its_curve_up_to_the_studys_rank(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:8], max_rank=4)
    found = Eva().measure(subject)
    for value, curve in zip(found.values, found.curves, strict=True):
        assert len(curve) == 4
        assert value == pytest.approx(curve[: subject.lora.rank].sum())
        assert (np.diff(curve) <= 0).all()
        assert 0 < value <= 1 + 1e-6
    assert found.num_forwards == 8


def test_halves_are_what_each_half_says_by_itself(base, anatomy, prepared):
    rows = prepared.train.rows[:9]
    whole = Eva().measure(subject_of(base, anatomy, rows))
    for half, own in zip(whole.halves, (rows[:5], rows[5:]), strict=True):
        alone = subject_of(base, anatomy, own, max_rank=4)
        inputs = Inputs(alone)
        # By itself it would be read in passes of its own halves.
        for start in range(0, len(own), 4):
            part = replace(alone, rows=own[start : start + 4], batch=4)
            inputs_of(part, inputs)
        shares = [inputs._spectra[leader].whole.ratios()[:2].sum() for leader in inputs.leaders]
        assert half == pytest.approx(shares, rel=1e-5)


def inputs_of(subject, inputs):
    """Add a subject's rows to inputs in one pass."""
    calls = []
    doubled = replace(subject, rows=(*subject.rows, *subject.rows), batch=len(subject.rows))
    read_forward(doubled, maps_of(doubled), calls.append)
    for call in calls[: len(calls) // 2]:
        inputs.add(call)


class TestRedistributed:
    """Which of the largest shares are whose; shares by site, and who reads the same."""

    def ranks(self, curves, leaders, budget):
        return redistributed([np.array(curve) for curve in curves], leaders, budget)

    def test_the_largest_shares_win(self):
        assert self.ranks([[0.9, 0.05], [0.5, 0.4]], [0, 1], 3) == [1, 2]
        assert self.ranks([[0.9, 0.05], [0.5, 0.4]], [0, 1], 1) == [1, 0]

    def test_among_equals_the_first_has_most(self):
        assert self.ranks([[0.6, 0.3], [0.6, 0.3], [0.6, 0.3]], [0, 0, 0], 4) == [2, 1, 1]
        assert self.ranks([[0.6, 0.3], [0.6, 0.3]], [0, 0], 1) == [1, 0]

    def test_more_than_all_is_all(self):
        assert self.ranks([[0.6, 0.3], [0.5]], [0, 1], 9) == [2, 1]


def test_what_is_no_number_is_named(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:4])
    weight = base.model.transformer.h[1].ln_2.weight
    before = weight.detach().clone()
    try:
        weight.data[0] = float("inf")
        with pytest.raises(TrialError, match=r"h\.1\.mlp\.c_fc: reads what is no number"):
            Eva().measure(subject)
    finally:
        weight.data.copy_(before)


def test_the_base_and_everyones_chance_stay(base, anatomy, prepared):
    digest, hooks, state = weights_digest(base.model), num_hooks(base.model), torch.get_rng_state()
    Eva().measure(subject_of(base, anatomy, prepared.train.rows[:8], max_rank=8))
    assert weights_digest(base.model) == digest
    assert num_hooks(base.model) == hooks
    assert torch.equal(torch.get_rng_state(), state)
