"""Adapters whose ranks change: what a column owns moves with it, and the function stays."""

import math

import pytest
import torch
from packed_cases import CPU

from loratlas.dynamic.spec import PolicySpec, build
from loratlas.placement.placement import LoraSpec, place
from loratlas.train.packed.aged import AgedAdamW
from loratlas.train.packed.backbone import Backbone
from loratlas.train.packed.elastic import ElasticSlot, elastic_bytes, parts
from loratlas.train.packed.entry import Entry, entry_of
from loratlas.train.packed.flow import Unit
from loratlas.train.packed.saved import reload_slot, save_slot
from loratlas.train.packed.slots import Slot

RANK, ROOM = 3, 5


def begun(case, *, form="product", scaling="constant", rule="all", seed=0):
    start = place(case.anatomy, rule, rank=RANK, alpha=6, scaling=scaling)
    room = {adapter.site.path: ROOM for adapter in start.adapters}
    return ElasticSlot.begin(start, room, form=form, seed=seed, dropout=0.0, device=CPU)


def filled(slot, seed=5):
    """Give every live column values, as training would."""
    chance = torch.Generator().manual_seed(seed)
    for path, columns in slot.columns.items():
        own = slot.own[path]
        own.a[: len(columns)] = torch.randn(len(columns), own.a.shape[1], generator=chance)
        own.b[:, : len(columns)] = torch.randn(len(own.b), len(columns), generator=chance)
        if slot.form == "svd":
            own.gate[: len(columns)] = torch.randn(len(columns), generator=chance)
        slot.refresh(path)
    return slot


def delta(slot, path):
    site = slot.sites[path]
    return site.scale * site.b @ site.a


def logits_of(case, slot):
    with torch.no_grad(), case.flat().opened([slot], case.prefix()) as flow:
        return flow.logits_of(0, case.test[:2])


def test_it_begins_as_a_slot_of_its_first_placement(gpt2):
    elastic = begun(gpt2)
    start = place(gpt2.anatomy, "all", rank=RANK, alpha=6)
    still = Slot.new(start, seed=0, dropout=0.0, device=CPU)
    for path, site in still.sites.items():
        assert torch.equal(elastic.sites[path].a, site.a)
        assert torch.equal(elastic.sites[path].b, site.b)
        assert elastic.sites[path].scale == site.scale
    assert elastic.num_live == start.trainable_parameters


@pytest.mark.parametrize("form", ["product", "svd"])
def test_growth_preserves_the_function(gpt2, form):
    slot = filled(begun(gpt2, form=form))
    before = {path: delta(slot, path) for path in slot.columns}
    logits = logits_of(gpt2, slot)
    for path in slot.columns:
        slot.grow(path, 2, ())
    for path in slot.columns:
        assert slot.columns[path] == (0, 1, 2, 3, 4)
        # The new products are zeros; the sum takes them in another order.
        torch.testing.assert_close(delta(slot, path), before[path], rtol=1e-5, atol=1e-6)
        assert slot.own[path].a[3:].any()
    torch.testing.assert_close(logits_of(gpt2, slot), logits, rtol=1e-4, atol=1e-5)


def test_a_column_has_the_initial_values_of_its_identity(gpt2):
    slot, other = begun(gpt2), begun(gpt2)
    path = next(iter(slot.columns))
    slot.grow(path, 2, ())
    slot.keep(path, [0, 4], ())
    slot.grow(path, 1, ())
    assert slot.columns[path] == (0, 4, 5)
    whole = begun(gpt2).placement.by_path[path].site
    from loratlas.train.randomness import initial_a

    drawn = torch.from_numpy(initial_a(0, path, rank=6, d_in=whole.d_in))
    assert torch.equal(slot.sites[path].a, drawn[[0, 4, 5]])
    assert torch.equal(other.sites[path].a, drawn[:3])


@pytest.mark.parametrize("form", ["product", "svd"])
def test_what_belongs_to_a_column_moves_with_it(gpt2, form):
    slot = filled(begun(gpt2, form=form))
    path = next(iter(slot.columns))
    follower = torch.arange(slot.values.numel(), dtype=torch.float32)
    own = parts(slot.placement, slot.form, follower)
    before = [tensor.clone() for tensor in own[path]]
    values = [tensor.clone() for tensor in slot.own[path]]
    slot.keep(path, [0, 2], [own[path]])
    for found, old in ((own[path], before), (slot.own[path], values)):
        assert torch.equal(found.a[:2], old[0][[0, 2]])
        assert torch.equal(found.b[:, :2], old[1][:, [0, 2]])
        assert not found.a[2:].any()
        assert not found.b[:, 2:].any()
        if form == "svd":
            assert torch.equal(found.gate[:2], old[2][[0, 2]])
    others = [p for p in slot.columns if p != path]
    untouched = parts(slot.placement, slot.form, torch.arange(follower.numel()).float())
    assert all(torch.equal(own[p].a, untouched[p].a) for p in others)
    slot.grow(path, 1, [own[path]])
    assert not own[path].a[2].any()


def test_pruning_takes_the_products_of_columns_away(gpt2):
    slot = filled(begun(gpt2))
    path = next(iter(slot.columns))
    site = slot.sites[path]
    left = site.scale * site.b[:, [0, 2]] @ site.a[[0, 2]]
    slot.keep(path, [0, 2], ())
    torch.testing.assert_close(delta(slot, path), left, rtol=1e-5, atol=1e-6)
    per_rank = slot.placement.by_path[path].site.parameters_per_rank
    start = place(gpt2.anatomy, "all", rank=RANK).trainable_parameters
    assert slot.num_live == start - per_rank


def test_a_site_without_columns_computes_what_the_base_does(gpt2):
    slot = filled(begun(gpt2))
    for path in slot.columns:
        slot.keep(path, [], ())
    bare = Slot.new(place(gpt2.anatomy, "all", rank=1), seed=0, dropout=0.0, device=CPU)
    assert torch.equal(logits_of(gpt2, slot), logits_of(gpt2, bare))


@pytest.mark.parametrize("scaling", ["constant", "alpha/r", "rslora"])
def test_the_scale_survives_every_change_and_the_placement_at_rest_has_it(gpt2, scaling):
    slot = filled(begun(gpt2, scaling=scaling))
    start = place(gpt2.anatomy, "all", rank=RANK, alpha=6, scaling=scaling)
    lora = LoraSpec(rank=RANK, alpha=6, scaling=scaling)
    wanted = lora.alpha_at(RANK) / (math.sqrt(RANK) if scaling == "rslora" else RANK)
    first, second, *_ = slot.columns
    slot.grow(first, 2, ())
    slot.keep(second, [1], ())
    assert all(site.scale == pytest.approx(wanted) for site in slot.sites.values())
    rest = slot.at_rest().placement
    assert {a.site.path: a.rank for a in rest.adapters} == slot.ranks
    assert all(rest.scale(a) == pytest.approx(wanted, rel=1e-12) for a in rest.adapters)
    assert rest.scaling == start.scaling


@pytest.mark.parametrize("form", ["product", "svd"])
def test_at_rest_it_computes_the_same_and_saves_as_ordinary_lora(gpt2, form, tmp_path):
    slot = filled(begun(gpt2, form=form))
    first, second, third, *_ = slot.columns
    slot.keep(first, [2], ())
    slot.keep(second, [], ())
    slot.grow(third, 2, ())
    if form == "svd":
        slot.silence(third, frozenset({1}))
    rest = slot.at_rest()
    assert second not in rest.sites
    assert rest.placement.trainable_parameters == slot.num_live
    # Columns that hold zeros are not there any more: sums of fewer terms.
    torch.testing.assert_close(logits_of(gpt2, rest), logits_of(gpt2, slot), rtol=1e-4, atol=1e-5)
    save_slot(rest, tmp_path / "adapter", gpt2.base)
    reload_slot(rest, tmp_path / "adapter")


def test_gradients_of_the_svd_form_are_those_of_autograd(gpt2):
    slot = filled(begun(gpt2, form="svd"))
    weight = 0.3
    path = next(iter(slot.columns))
    of_b = torch.randn(slot.sites[path].b.shape, generator=torch.Generator().manual_seed(3))
    of_a = torch.randn(slot.sites[path].a.shape, generator=torch.Generator().manual_seed(4))
    slot.begin_step()
    slot.sites[path].grad_b.copy_(of_b)
    slot.sites[path].grad_a.copy_(of_a)
    slot.pull(weight)
    own, n = slot.own[path], RANK
    q, p, gate = (each.clone().requires_grad_() for each in (own.a[:n], own.b[:, :n], own.gate[:n]))
    constraint = (p.t() @ p - torch.eye(n)).norm() + (q @ q.t() - torch.eye(n)).norm()
    weight /= 2 * len(slot.columns)
    # A loss that is linear in B = P·diag(λ) and in Q, so that its gradients are those given.
    loss = ((p * gate) * of_b).sum() + (q * of_a).sum() + weight * constraint
    loss.backward()
    gradient = slot.gradients[path]
    for found, wanted in ((gradient.a[:n], q), (gradient.b[:, :n], p), (gradient.gate[:n], gate)):
        torch.testing.assert_close(found, wanted.grad, rtol=1e-5, atol=1e-4)


def test_silent_columns_count_nothing_and_stay_at_zero(gpt2):
    slot = filled(begun(gpt2, form="svd"))
    path = next(iter(slot.columns))
    count = slot.num_live
    slot.silence(path, frozenset({0, 2}))
    assert slot.num_live == count - 2 * slot.placement.by_path[path].site.parameters_per_rank
    slot.own[path].gate.fill_(1.0)  # as an optimiser step might
    slot.settle()
    assert slot.own[path].gate[:RANK].tolist() == [0.0, 1.0, 0.0]
    assert not slot.sites[path].b[:, [0, 2]].any()
    slot.silence(path, frozenset())
    assert slot.num_live == count


def test_an_elastic_trial_enters_where_its_lowest_site_is(gpt2, monkeypatch):
    slot = filled(begun(gpt2, rule="all @ last(1)"))
    last = gpt2.anatomy.stacks["decoder"] - 1
    assert entry_of(slot.placement) == Entry(last, 0)
    slot.keep(next(iter(slot.columns)), [], ())  # where it begins does not move with its columns
    assert entry_of(slot.placement) == Entry(last, 0)
    entered = []
    run = Backbone.run

    def noted(backbone, inputs, *, first=0, **more):
        entered.append(first)
        return run(backbone, inputs, first=first, **more)

    prefix = gpt2.prefix()
    with torch.no_grad(), gpt2.flat().opened([slot], prefix) as flow:
        flow.passed([Unit(0, gpt2.test[:2])])  # the prefix is filled from the first block on
        monkeypatch.setattr(Backbone, "run", noted)
        flow.passed([Unit(0, gpt2.test[:2])])
    assert set(entered) == {last}


@pytest.mark.parametrize("orthogonality", [0.0, 0.5])
def test_the_gradient_of_the_constraint_is_no_observation(gpt2, orthogonality):
    slot = filled(begun(gpt2, form="svd"))
    start = place(gpt2.anatomy, "all", rank=RANK, alpha=6)
    policy = build(
        PolicySpec.read({"policy": "adalora"}),
        placement=start, target_parameters=start.trainable_parameters, total_steps=20,
    )  # fmt: skip
    reached, other, *_ = slot.columns
    slot.begin_step()
    slot.sites[reached].grad_a.fill_(0.1)
    slot.sites[reached].grad_b.fill_(0.1)
    slot.pull(orthogonality)
    policy.observe(1, slot.live())
    known = policy.state()
    assert all(each.any() for each in known.part(reached).tensors.values())
    assert not any(each.any() for each in known.part(other).tensors.values())
    assert slot.gradients[other].a.any() == bool(orthogonality)


@pytest.mark.parametrize("form", ["product", "svd"])
def test_its_bytes_are_those_of_its_tensors(gpt2, form):
    slot = begun(gpt2, form=form)
    start = place(gpt2.anatomy, "all", rank=RANK, alpha=6)
    optimiser = AgedAdamW(slot.values, lr=1e-3, weight_decay=0.0)
    tensors = [slot.values, slot.gradient, *optimiser.followers]
    tensors += [each for pair in slot.products.values() for each in pair]
    room = dict.fromkeys(slot.columns, ROOM)
    assert elastic_bytes(start, room, form) == sum(each.nbytes for each in tensors)
