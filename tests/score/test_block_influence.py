"""How far blocks turn hidden states, beside the states that transformers itself returns."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from forward_subjects import family_subject
from scored_subjects import subject_of

from loratlas.score.block_influence import BlockInfluence


def by_hand(subject):
    """Return 1 - cos of every token, by block, from rows that go by themselves."""
    turned = [[] for _ in range(subject.anatomy.num_layers)]
    with torch.no_grad():
        for row in subject.rows:
            inputs = subject.base.collator([row])
            del inputs["labels"]
            states = subject.base.model(**inputs, output_hidden_states=True).hidden_states
            # The last of them has gone through the norm behind the blocks, and is left out.
            for block, (before, after) in enumerate(pairwise(states[:-1])):
                turned[block].append(1 - torch.cosine_similarity(before[0], after[0], dim=1))
    return [float(torch.cat(tokens).double().mean()) for tokens in turned[:-1]]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_values_are_those_of_the_hidden_states(family, tmp_path_factory):
    subject = family_subject(family, tmp_path_factory.mktemp("influence") / family, batch=4)
    found = BlockInfluence().measure(subject)
    expected = by_hand(subject)
    assert len(expected) == 2
    for site, value in zip(subject.sites, found.values, strict=True):
        if site.layer < 2:
            # 1 - cos of float32: seven digits of 1.
            assert value == pytest.approx(expected[site.layer], abs=1e-6)
    assert len(set(found.values)) == 3
    assert (found.stderr > 0).all()
    assert found.num_tokens.tolist() == [sum(len(r.ids) for r in subject.rows)] * len(subject.sites)


def test_a_block_that_does_nothing_has_no_influence(base, anatomy, prepared):
    block = base.model.transformer.h[1]
    kept = [
        (parameter, parameter.detach().clone())
        for module in (block.attn.c_proj, block.mlp.c_proj)
        for parameter in module.parameters()
    ]
    try:
        for parameter, _ in kept:
            parameter.data.zero_()
        subject = subject_of(base, anatomy, prepared.train.rows[:4])
        found = BlockInfluence().measure(subject).values
    finally:
        for parameter, before in kept:
            parameter.data.copy_(before)
    layers = np.array([site.layer for site in subject.sites])
    assert found[layers == 1] == pytest.approx(0, abs=1e-6)
    assert (found[layers != 1] > 1e-3).all()


def test_both_stacks_of_a_model(tmp_path_factory):
    subject = family_subject("t5", tmp_path_factory.mktemp("influence") / "t5", batch=4)
    found = BlockInfluence().measure(subject)
    assert len(set(found.values)) == 6
    sources = sum(len(row.source) for row in subject.rows)
    encoder = [site.stack == "encoder" for site in subject.sites]
    assert set(found.num_tokens[encoder]) == {sources}


def test_what_stands_in_no_block_is_named(base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:4], rule="all | head")
    assert BlockInfluence().why_not(subject) == "lm_head stands in no block"
    assert BlockInfluence().why_not(subject_of(base, anatomy, ())) is None
