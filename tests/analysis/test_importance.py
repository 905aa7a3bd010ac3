from dataclasses import replace

import numpy as np
import pytest
from arms import BASE, TOKENS
from decisions import losses, run

from loratlas.analysis.contrasts import Arm
from loratlas.analysis.estimates import estimate
from loratlas.analysis.groups import groups_of
from loratlas.analysis.importance import importance, linear
from loratlas.anatomy.sites import Role, Site

ROLES = ("attention.q", "attention.v", "feed_forward.up")
SITES = {
    f"h.{layer}.{role}": Site(
        path=f"h.{layer}.{role}",
        stack="decoder",
        layer=layer,
        role=Role.parse(role),
        d_in=8,
        d_out=8,
    )
    for layer in range(4)
    for role in ROLES
}
BASE_LOSS = BASE.sum() / TOKENS.sum()


def _sites(*words, layers=range(4), rank=8):
    """Sites of these layers whose role begins with one of the words."""
    return {
        path: rank
        for path, site in SITES.items()
        if site.layer in layers and str(site.role).startswith(words)
    }


EVERY = _sites("attention", "feed_forward")


def test_groups_are_what_the_study_can_tell_apart():
    placements = {
        "a": EVERY,
        "b": _sites("attention"),
        "c": _sites("attention", "feed_forward", layers=(2, 3)),
    }
    by_role = groups_of(placements, SITES, "role")
    assert [group.name for group in by_role] == ["attention", "feed_forward"]
    assert by_role[0].shares == {"a": 1, "b": 1, "c": 0.5}
    assert len(by_role[0].paths) == 8
    by_layer = groups_of(placements, SITES, "layer")
    assert [group.name for group in by_layer] == ["layers 0-1", "layers 2-3"]
    single = groups_of({**placements, "d": _sites("attention.q", layers=(0, 3))}, SITES, "layer")
    assert [group.name for group in single] == ["layer 0", "layer 1", "layer 2", "layer 3"]
    parts = groups_of({"a": EVERY, "q": _sites("attention.q")}, SITES, "role")
    assert [group.name for group in parts] == ["attention.q", "attention.v + feed_forward"]


def test_layers_of_two_stacks_and_sites_outside_them():
    encoder = Site(
        path="e.0", stack="encoder", layer=0, role=Role.parse("attention.q"), d_in=8, d_out=8
    )
    head = Site(path="head", stack=None, layer=None, role=Role.parse("head"), d_in=8, d_out=8)
    sites = {**SITES, "e.0": encoder, "head": head}
    placements = {
        "a": {**EVERY, "e.0": 8, "head": 8},
        "b": {**_sites("attention", layers=(1, 3)), "e.0": 8},
        "c": {"head": 8},
    }
    names = [group.name for group in groups_of(placements, sites, "layer")]
    assert names == ["decoder layers 0, 2", "decoder layers 1, 3", "encoder layer 0", "head"]


def test_comparisons_are_recognised_by_sites_and_not_by_names():
    placements = {"x": EVERY, "y": _sites("attention"), "z": _sites("feed_forward")}
    arms = losses({"x": 2.0, "y": 2.4, "z": 2.1})
    found = importance(arms, placements, SITES, "role")
    added = {effect.group: effect for effect in found.add_one_in}
    left = {effect.group: effect for effect in found.leave_one_out}
    assert (added["attention"].placement, left["attention"].placement) == ("y", "z")
    assert added["attention"].estimate.value == pytest.approx(BASE_LOSS - 2.4)
    assert added["attention"].against is None
    assert left["attention"].estimate.value == pytest.approx(0.1)
    assert left["feed_forward"].estimate.value == pytest.approx(0.4)
    assert left["feed_forward"].against == "x"
    assert left["feed_forward"].p_adjusted < 0.001
    low, high = left["feed_forward"].estimate.interval
    assert low < 0.4 < high
    assert found.model is None
    assert found.says == ()


def test_leave_one_out_says_when_ranks_moved_and_prefers_a_whole_without():
    placements = {"x": {**EVERY, "h.0.attention.q": 4}, "y": _sites("attention")}
    arms = losses({"x": 2.0, "y": 2.4, "z": 2.2})
    (moved,) = importance(arms, placements, SITES, "role").leave_one_out
    assert moved.says[0].startswith("The ranks of y differ from those of x")
    (clean,) = importance(arms, {**placements, "z": EVERY}, SITES, "role").leave_one_out
    assert clean.against == "z"
    assert clean.says == ()


def _additive(placements, worth, noise=0.01):
    table = {}
    for name, ranks in placements.items():
        groups = {}
        for path in ranks:
            role = path.split(".", 2)[2]
            groups[role] = groups.get(role, 0) + 1 / 4
        table[name] = 2.9 - sum(worth[role] * share for role, share in groups.items())
    return losses(table, noise=noise)


def test_the_linear_model_says_why_a_placement_is_left_out():
    """One has no scores; of one the sites change in training, so that it has no share."""
    placements = {
        "a": EVERY,
        "b": _sites("attention"),
        "c": _sites("attention", "feed_forward", layers=(0, 1)),
        "d": _sites("attention.q", "feed_forward", layers=(1, 2)),
        "e": _sites("attention.v"),
    }
    arms = losses({**dict.fromkeys(placements, 2.0), "moves": 2.0})
    unscored = replace(arms.by_name["e"], seeds=(), nll=arms.by_name["e"].nll[:0])
    arms = replace(arms, by_name={**arms.by_name, "e": unscored})
    says = linear(arms, groups_of(placements, SITES, "role")).says
    assert "Left out, for want of scores: e." in says
    assert "Left out, for their sites change in training: moves." in says


def test_a_linear_model_finds_what_adds_up():
    worth = {"attention.q": 0.1, "attention.v": 0.3, "feed_forward.up": 0.5}
    placements = {
        "a": _sites("attention"),
        "b": _sites("attention.q", "feed_forward"),
        "c": _sites("attention.v", "feed_forward", layers=(0, 1)),
        "d": _sites("feed_forward", "attention.v", layers=(1, 2, 3)),
        "e": _sites("attention.q", layers=(0,)) | _sites("feed_forward", layers=(0, 1, 2)),
    }
    found = importance(_additive(placements, worth), placements, SITES, "role").model
    assert [effect.group for effect in found.effects] == [
        "attention.q",
        "attention.v",
        "feed_forward",
    ]
    for effect in found.effects:
        assert effect.estimate.value == pytest.approx(worth.get(effect.group, 0.5), abs=1e-9)
        assert effect.placement is None
        assert effect.estimate.scope == "new seeds and new examples"
    assert found.residual == pytest.approx(0, abs=1e-9)
    assert found.explained == pytest.approx(1)
    assert found.says[0].startswith("A linear model of 5 placements' losses in the share")


def test_the_model_says_how_much_it_leaves_and_matches_least_squares():
    placements = {
        f"p{index}": _sites("attention", layers=range(index))
        | _sites("feed_forward", layers=range(4 - index))
        for index in (1, 2, 3)
    } | {"p4": _sites("attention", layers=(0, 1)) | _sites("feed_forward", layers=(3,))}
    table = {"p1": 2.0, "p2": 2.5, "p3": 2.2, "p4": 2.4}
    arms = losses(table)
    found = importance(arms, placements, SITES, "role").model
    # Of attention three layers are adapted by some placement, of feed-forward all four.
    design = np.array([[12, 4, 9], [12, 8, 6], [12, 12, 3], [12, 8, 3]]) / 12
    expected, (square,), *_ = np.linalg.lstsq(design, np.array(list(table.values())), rcond=None)
    assert [e.estimate.value for e in found.effects] == pytest.approx((-expected[1:]).tolist())
    assert found.residual == pytest.approx(np.sqrt(square))
    total = np.square(np.array(list(table.values())) - 2.275).sum()
    assert found.explained == pytest.approx(1 - square / total)
    weights = np.linalg.pinv(design)[1]
    by_hand = sum(-w * arms.by_name[n].nll for w, n in zip(weights, table, strict=True))
    assert found.effects[0].estimate.interval == pytest.approx(estimate(by_hand, TOKENS).interval)


@pytest.mark.parametrize(
    ("placements", "said"),
    [
        (
            {"a": _sites("attention.q", "attention.v"), "b": _sites("feed_forward", "attention.q")},
            "No linear model: 2 placements with scores are too few for 4 terms.",
        ),
        (
            {
                name: _sites("attention", layers=range(size))
                | _sites("feed_forward", layers=range(size, 4))
                for name, size in (("a", 1), ("b", 2), ("c", 3))
            },
            "No linear model: the shares of attention, feed_forward determine each other in "
            "these placements, so that their effects cannot be told apart.",
        ),
    ],
)
def test_a_model_that_is_not_identified_is_refused(placements, said):
    arms = losses({name: 2.0 + index / 10 for index, name in enumerate(placements)})
    found = importance(arms, placements, SITES, "role").model
    assert found.says == (said,)
    assert found.effects == ()


def test_what_cannot_be_said():
    alike = importance(losses({"a": 2.0}), {"a": EVERY}, SITES, "role")
    assert alike.says == (
        "The placements adapt every role alike: their parts cannot be told apart.",
    )
    placements = {"x": EVERY, "y": _sites("attention"), "z": _sites("feed_forward")}
    table = losses({"x": 2.0, "y": 2.4, "z": 2.1}).by_name
    no_base = importance(run(*table.values(), base_nll=None), placements, SITES, "role")
    assert no_base.says == ("The untuned base was not scored: there is no add-one-in.",)
    assert no_base.add_one_in == ()
    failed = Arm(name="y", seeds=(), nll=np.zeros((0, len(TOKENS))))
    some = importance(run(table["x"], failed, table["z"]), placements, SITES, "role")
    (lost,) = [effect for effect in some.add_one_in if effect.group == "attention"]
    assert (lost.estimate.value, lost.says) == (None, ("There is no seed to compare.",))
    one_seed = importance(
        losses({"x": 2.0, "y": 2.4, "z": 2.1}, seeds=(0,)), placements, SITES, "role"
    )
    for effect in (*one_seed.add_one_in, *one_seed.leave_one_out):
        assert effect.p_adjusted is None
        assert effect.says[-1].startswith("One seed: the interval is for this seed alone")
