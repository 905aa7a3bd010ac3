"""Normalised feature norms beside closed forms, and beside one row at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forward_subjects import family_subject, num_hooks, read_alone
from scored_subjects import subject_of
from transformers.pytorch_utils import Conv1D

import anatomies
from loratlas.errors import TrialError
from loratlas.score.inputs import Call
from loratlas.score.plop import FeatureNorms, Plop, PlopSite, _Map
from loratlas.train.base import weights_digest


def linear(weight, bias=None):
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module


def conv1d(weight, bias=None):
    module = Conv1D(weight.shape[0], weight.shape[1])
    with torch.no_grad():
        module.weight.copy_(weight.T)
        module.bias.copy_(torch.zeros(weight.shape[0]) if bias is None else bias)
    return module


def norm_of(module, tokens, outputs=slice(None)):
    """Return the NFN of one map over tokens (tokens, d_in), one token a row."""
    model = torch.nn.Sequential(module)
    site = anatomies.site("0", "attention.q", tokens.shape[1], 1)
    subject = SimpleNamespace(
        base=SimpleNamespace(model=model), sites=(site,), rows=[None] * len(tokens)
    )
    norms = FeatureNorms(subject, [_Map(0, outputs)])
    with torch.no_grad():
        norms.add(
            Call(
                site=0,
                rows=np.arange(len(tokens)),
                scored=torch.ones(len(tokens), dtype=torch.bool),
                read=tokens[:, None],
                gave=module(tokens)[:, None],
                present=torch.ones(len(tokens), 1, dtype=torch.bool),
            )
        )
    return norms.means.means()[0], norms.means.num_tokens[0]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", [linear, conv1d])
def test_closed_forms(make):
    tokens = normal(50, 16)
    # An isometry turns every token, and prefers none.
    turn = torch.linalg.qr(normal(16, 16, seed=1)).Q
    assert norm_of(make(turn), tokens)[0] == pytest.approx(1, rel=1e-5)
    assert norm_of(make(3 * turn), tokens)[0] == pytest.approx(1, rel=1e-5)
    # u vᵀ makes ‖u‖ v·z of a token: √d_in |cos(v, z)|, at most √d_in.
    u, v = normal(12, seed=2), normal(16, seed=3)
    cosines = torch.nn.functional.cosine_similarity(tokens, v[None]).abs()
    aligned = norm_of(make(torch.outer(u, v)), tokens)[0]
    assert aligned == pytest.approx(4 * float(cosines.mean()), rel=1e-5)
    assert norm_of(make(torch.outer(u, v)), v[None] * 7)[0] == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("make", [linear, conv1d])
@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (96, 48)])
def test_of_random_weights_and_tokens_it_is_one(make, shape):
    # ‖Wz‖ varies by about 1/√(2 d_out) from token to token, by a tenth of it over 300 of them.
    found, _ = norm_of(make(normal(*shape)), normal(300, shape[1], seed=1))
    assert found == pytest.approx(1, abs=0.03)


def test_a_square_conv1d_is_read_as_it_is_stored():
    weight, tokens = normal(16, 16), normal(40, 16, seed=1) * torch.arange(16)
    right = norm_of(linear(weight), tokens)[0]
    assert norm_of(conv1d(weight), tokens)[0] == pytest.approx(right, rel=1e-5)
    assert norm_of(linear(weight.T), tokens)[0] != pytest.approx(right, rel=1e-2)


@pytest.mark.parametrize("make", [linear, conv1d])
def test_a_bias_takes_no_part(make):
    weight, tokens = normal(12, 16), normal(40, 16, seed=1)
    plain = norm_of(make(weight), tokens)[0]
    # What is taken off again was a hundred times as long: five digits of seven are left.
    assert norm_of(make(weight, normal(12, seed=2) * 100), tokens)[0] == pytest.approx(
        plain, rel=1e-3
    )


def test_a_part_is_a_map_of_its_own():
    weight, tokens = normal(12, 16), normal(40, 16, seed=1) * torch.arange(16)
    part = torch.tensor([1, 5, 7])
    alone = norm_of(linear(weight[part]), tokens)[0]
    assert norm_of(linear(weight), tokens, part)[0] == pytest.approx(alone, rel=1e-5)
    assert norm_of(conv1d(weight), tokens, part)[0] == pytest.approx(alone, rel=1e-5)


def test_a_token_of_zeros_says_nothing():
    weight, tokens = normal(12, 16), normal(40, 16, seed=1)
    alone, count = norm_of(linear(weight), tokens)
    with_zeros = norm_of(linear(weight), torch.cat([tokens, torch.zeros(5, 16)]))
    assert with_zeros == (pytest.approx(alone, rel=1e-6), count)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_token_that_is_no_number_is_not_passed_over(value):
    tokens = normal(5, 16)
    tokens[2, 3] = value
    with pytest.raises(TrialError, match="0: reads what is no number: nothing to score"):
        norm_of(linear(normal(12, 16)), tokens)


def test_a_weight_of_zeros_has_no_norm():
    with pytest.raises(TrialError, match="0: its weight is zero, so that it has no feature norm"):
        norm_of(linear(torch.zeros(4, 4)), normal(3, 4))


def by_hand(subject, site, read, part=slice(None)):
    """Return a site's NFN from rows that go by themselves, in float64."""
    module = subject.base.model.get_submodule(site.path)
    stored = module.weight.detach().double()
    weight = (stored.T if isinstance(module, Conv1D) else stored)[part]
    tokens = torch.cat(read[site.path]).double()
    stretch = (tokens @ weight.T).norm(dim=1) / tokens.norm(dim=1)
    return float(stretch.mean() * site.d_in**0.5 / weight.norm())


@pytest.mark.parametrize("batch", [1, 4])
def test_each_site_has_the_norm_of_its_own_tokens(base, anatomy, prepared, batch):
    subject = subject_of(base, anatomy, prepared.train.rows[:10], batch=batch)
    found = PlopSite().measure(subject)
    read = read_alone(subject)
    expected = [by_hand(subject, site, read) for site in subject.sites]
    # float32 against float64.
    assert found.values == pytest.approx(expected, rel=1e-5)
    num_tokens = sum(len(row.ids) for row in subject.rows)
    assert found.num_tokens.tolist() == [num_tokens] * len(subject.sites)
    assert found.num_forwards == 10


def test_q_k_and_v_of_a_fused_map_have_their_own(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:6], rule="attention")
    found, read = PlopSite().measure(subject), read_alone(subject)
    for site, parts in zip(subject.sites, found.slices, strict=True):
        if str(site.role) == "attention.qkv":
            thirds = {"q": slice(0, 32), "k": slice(32, 64), "v": slice(64, 96)}
            expected = {name: by_hand(subject, site, read, part) for name, part in thirds.items()}
            assert parts == pytest.approx(expected, rel=1e-5)
        else:
            assert parts is None


def test_a_type_has_the_plain_mean_of_its_sites(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:10])
    own, shared = PlopSite().measure(subject), Plop().measure(subject)
    roles = [str(site.role) for site in subject.sites]
    for number, role in enumerate(roles):
        same = [place for place, other in enumerate(roles) if other == role]
        assert len(same) == 3
        assert shared.values[number] == pytest.approx(own.values[same].mean(), rel=1e-12)
        assert shared.halves[:, number] == pytest.approx(own.halves[:, same].mean(1), rel=1e-12)
        # Of a mean it is no more than the mean of the errors, whatever they have in common.
        assert 0 < shared.stderr[number] <= own.stderr[same].mean() * (1 + 1e-12)
    q = [parts["q"] for parts in own.slices if parts]
    assert shared.slices[0]["q"] == pytest.approx(np.mean(q), rel=1e-12)


def test_halves_are_what_each_half_says_by_itself(base, anatomy, prepared):
    rows = prepared.train.rows[:9]
    whole = Plop().measure(subject_of(base, anatomy, rows))
    for half, own in zip(whole.halves, (rows[:5], rows[5:]), strict=True):
        assert half == pytest.approx(Plop().measure(subject_of(base, anatomy, own)).values)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_models_that_are_not_causal(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp(family) / family
    subject = family_subject(family, folder, masking=None)
    found = PlopSite().measure(subject)
    read = read_alone(subject)
    expected = [by_hand(subject, site, read) for site in subject.sites]
    assert found.values == pytest.approx(expected, rel=1e-5)


def test_the_base_stays_as_it_is(base, anatomy, prepared):
    digest, hooks = weights_digest(base.model), num_hooks(base.model)
    Plop().measure(subject_of(base, anatomy, prepared.train.rows[:4]))
    assert weights_digest(base.model) == digest
    assert num_hooks(base.model) == hooks
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
