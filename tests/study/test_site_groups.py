"""How sites fall into groups, and that the sentence for a group selects it and nothing else."""

import pytest

from loratlas.placement.placement import place
from loratlas.study.groups import BY, group_sites, rule_of
from tiny_models import anatomy_of


def sites_of(anatomy, rule="all"):
    return tuple(adapter.site for adapter in place(anatomy, rule).adapters)


def names(anatomy, by, rule="all"):
    return [group.name for group in group_sites(sites_of(anatomy, rule), anatomy, by)]


def test_by_role_and_quarter():
    anatomy = anatomy_of("gpt2")
    groups = group_sites(sites_of(anatomy), anatomy, "role_quarter")
    # Of 3 layers, 0 is in the first quarter, 1 in the second, 2 in the third.
    assert [group.name for group in groups[:5]] == [
        "attention.qkv, layer 0",
        "attention.o, layer 0",
        "feed_forward.up, layer 0",
        "feed_forward.down, layer 0",
        "attention.qkv, layer 1",
    ]
    assert len(groups) == 12
    assert groups[0].parameters_per_rank == 32 + 96


@pytest.mark.parametrize(
    ("layers", "sizes"), [(6, [2, 1, 2, 1]), (8, [2, 2, 2, 2]), (4, [1, 1, 1, 1])]
)
def test_quarters_are_those_of_the_language(layers, sizes):
    from loratlas.placement.instance import model_of
    from tiny_models import gpt2

    anatomy = model_of(gpt2(layers)).anatomy
    groups = group_sites(sites_of(anatomy, "attention.o"), anatomy, "role_quarter")
    assert [len(group.sites) for group in groups] == sizes
    for quarter, group in enumerate(groups):
        rule = f"attention.o @ layers({25 * quarter}%..{25 * quarter + 25}%)"
        assert group.sites == sites_of(anatomy, rule)


def test_by_role_and_by_layer():
    anatomy = anatomy_of("gpt2")
    roles = ["attention.qkv", "attention.o", "feed_forward.up", "feed_forward.down"]
    assert names(anatomy, "role") == roles
    assert names(anatomy, "layer") == ["layer 0", "layer 1", "layer 2"]


def test_two_stacks_and_sites_outside_them():
    anatomy = anatomy_of("t5")
    assert names(anatomy, "layer")[:2] == ["encoder layer 0", "encoder layer 1"]
    assert "decoder cross_attention.q" in names(anatomy, "role")
    assert "attention.q, encoder layer 1" in names(anatomy, "role_quarter")
    assert names(anatomy_of("llama"), "layer", "head | attention.q") == [
        "layer 0",
        "layer 1",
        "layer 2",
        "head",
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5", "mixtral", "qwen3_moe"])
@pytest.mark.parametrize("by", BY)
def test_a_rule_selects_its_group_and_nothing_else(family, by):
    anatomy = anatomy_of(family)
    sites = sites_of(anatomy)
    groups = group_sites(sites, anatomy, by)
    assert sorted(s.path for g in groups for s in g.sites) == sorted(s.path for s in sites)
    for group in groups:
        assert sites_of(anatomy, rule_of(group.sites, anatomy)) == group.sites
        rest = tuple(site for site in sites if site not in group.sites)
        assert sites_of(anatomy, rule_of(rest, anatomy, "all")) == rest


def test_rules_are_what_a_person_would_write():
    anatomy = anatomy_of("gpt2")
    first, *_ = group_sites(sites_of(anatomy), anatomy, "role_quarter")
    assert rule_of(first.sites, anatomy) == "self_attention.qkv @ layers(0)"
    rest = [site for site in sites_of(anatomy) if site not in first.sites]
    assert rule_of(rest, anatomy, "all") == "(all) - (self_attention.qkv @ layers(0))"
    mixed = [site for site in sites_of(anatomy) if str(site.role) != "attention.o" or site.layer]
    some = [mixed[0], mixed[-1]]
    assert rule_of(some, anatomy) == f"names({some[0].path}, {some[1].path})"
    # The layers of one stack are named with it.
    t5 = anatomy_of("t5")
    sites = sites_of(t5, "self_attention.q @ encoder")
    assert rule_of(sites, t5) == "self_attention.q @ encoder @ layers(0..1)"


def test_a_rule_with_ranks_is_not_taken_apart():
    anatomy = anatomy_of("gpt2")
    sites = sites_of(anatomy, "attention")
    found = rule_of(sites[:3], anatomy, "attention:4 + feed_forward:2")
    assert found.startswith("names(")
    assert sites_of(anatomy, found) == sites[:3]
