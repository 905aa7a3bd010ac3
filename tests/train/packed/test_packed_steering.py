"""A policy in a pack: its changes are carried out between steps, and nothing else is touched."""

import pytest
import torch
from packed_cases import CPU, TRAINING, UNLIMITED, Trial, copied

from loratlas.errors import VerificationError
from loratlas.train.packed.columns import parts
from loratlas.train.packed.elastic import ElasticSlot
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.steering import Steering
from loratlas.train.policy import Grow, Prune, Silence

RANK, ROOM = 4, 6
TRIAL = Trial(rule="all", rate=1e-2)


class Scripted:
    """Decides what it was told to, and writes down what it saw."""

    name = "scripted"

    def __init__(self, script=None, *, form="product", most=UNLIMITED, orthogonality=0.0):
        self.script = script or {}
        self.form = form
        self.most = most
        self.orthogonality = orthogonality
        self.seen = []

    def budget(self, step):
        return self.most(step) if callable(self.most) else self.most

    def observe(self, step, sites):
        self.seen.append((step, {path: site.grad_b.clone() for path, site in sites.items()}))

    def decide(self, step, sites):  # noqa: ARG002
        return self.script.get(step, ())


def begun(case, policy):
    """The adapters of a trial that a policy moves."""
    start = case.placement(TRIAL)
    return ElasticSlot.begin(
        start, {adapter.site.path: ROOM for adapter in start.adapters},
        form=policy.form, seed=0, dropout=0.0, device=CPU,
    )  # fmt: skip


def trained(case, policies, trials=()):
    """Train elastic trials with their policies, and ordinary ones beside them."""
    slots = [begun(case, policy) for policy in policies]
    slots += case.slots(list(trials))
    case.base.model.train()
    with case.flat().opened(slots, case.prefix()) as flow:
        fits = fit_pack(
            flow, case.rows, TRAINING,
            learning_rates=[*[TRIAL.rate] * len(policies), *(t.rate for t in trials)],
            passes=Passes(UNLIMITED),
            policies=dict(enumerate(policies)),
        )  # fmt: skip
    case.base.model.eval()
    return slots, fits


def first_paths(case, count):
    return [adapter.site.path for adapter in case.placement(TRIAL).adapters[:count]]


def test_a_policy_that_does_nothing_trains_what_a_still_trial_trains(gpt2):
    (slot,), (fit,) = trained(gpt2, [Scripted()])
    (still,) = gpt2.packed([TRIAL])
    # The same gradients; AdamW's factors are taken in another order: roundings over 12 steps.
    assert max(abs(a - b) for a, b in zip(fit.losses, still.losses, strict=True)) < 1e-5
    for path, (a, b) in copied(slot).items():
        torch.testing.assert_close(a, still.adapters[path][0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(b, still.adapters[path][1], rtol=1e-3, atol=1e-5)
    assert fit.trajectory.steps == (0,)


def test_a_still_trial_has_the_same_bits_beside_one_that_moves(gpt2):
    one, two = first_paths(gpt2, 2)
    script = {2: [Prune(one, (0, 3)), Grow(two, 2)]}
    slots, _ = trained(gpt2, [Scripted(script)], [TRIAL])
    (alone,) = gpt2.packed([TRIAL])
    beside = copied(slots[1])
    for path, (a, b) in alone.adapters.items():
        assert torch.equal(a, beside[path][0])
        assert torch.equal(b, beside[path][1])


def test_two_runs_of_a_trial_that_moves_have_the_same_bits(gpt2):
    one, two = first_paths(gpt2, 2)
    script = {2: [Prune(one, (0, 3)), Grow(two, 2)], 4: [Prune(two, (1,))]}
    first, (fit,) = trained(gpt2, [Scripted(script)])
    second, (again,) = trained(gpt2, [Scripted(script)], [TRIAL])[0][:1], [None]
    assert again is None
    assert torch.equal(first[0].values, second[0].values)
    assert fit.trajectory.steps == (0, 2, 4)


def test_the_trajectory_tells_ranks_parameters_and_decisions(gpt2):
    one, two = first_paths(gpt2, 2)
    script = {1: [Prune(one, (0, 3)), Grow(two, 2)], 3: [Prune(two, (4,))]}
    (slot,), (fit,) = trained(gpt2, [Scripted(script)])
    told = fit.trajectory
    assert told.steps == (0, 1, 3)
    assert told.ranks[one] == (4, 2, 2)
    assert told.ranks[two] == (4, 6, 5)
    per_rank = {a.site.path: a.site.parameters_per_rank for a in slot.placement.adapters}
    start = RANK * sum(per_rank.values())
    assert told.parameters[0] == start
    assert told.parameters[1] == start - 2 * per_rank[one] + 2 * per_rank[two]
    assert told.decisions == (
        {"step": 1, "kind": "prune", "path": one, "columns": [0, 3]},
        {"step": 1, "kind": "grow", "path": two, "columns": [4, 5]},
        {"step": 3, "kind": "prune", "path": two, "columns": [4]},
    )
    assert slot.columns[one] == (1, 2)
    assert slot.columns[two] == (0, 1, 2, 3, 5)


def test_a_column_that_grew_is_trained_from_its_first_step_on(gpt2):
    (one,) = first_paths(gpt2, 1)
    (slot,), _ = trained(gpt2, [Scripted({2: [Grow(one, 1)]})])
    assert slot.own[one].b[:, RANK].any()


def test_moments_and_ages_go_with_their_columns(gpt2):
    one, two = first_paths(gpt2, 2)
    policy = Scripted({1: [Prune(one, (0, 3)), Grow(two, 1)]})
    slot = begun(gpt2, policy)
    steering = Steering.of(slot, policy, TRIAL.rate, TRAINING)
    vectors = steering.optimiser.followers
    for number, vector in enumerate(vectors, 1):  # no two entries alike
        vector.copy_(torch.arange(1, vector.numel() + 1) * number)
    of = [parts(slot.placement, slot.form, vector) for vector in vectors]
    before = [{path: (p[path].a.clone(), p[path].b.clone()) for path in (one, two)} for p in of]
    steering.after_step(1)
    assert slot.columns[one] == (1, 2)
    assert slot.columns[two] == (0, 1, 2, 3, 4)
    for own, old in zip(of, before, strict=True):
        a, b = old[one]
        assert torch.equal(own[one].a[:2], a[[1, 2]])
        assert torch.equal(own[one].b[:, :2], b[:, [1, 2]])
        assert not own[one].a[2:].any()
        assert not own[one].b[:, 2:].any()
        a, b = old[two]
        assert torch.equal(own[two].a[:RANK], a[:RANK])
        assert torch.equal(own[two].b[:, :RANK], b[:, :RANK])
        assert not own[two].a[RANK].any()  # what is new has no past
        assert not own[two].b[:, RANK].any()


def test_a_policy_sees_the_gradients_before_they_are_clipped(gpt2):
    policy = Scripted()
    trained(gpt2, [policy])
    norms = [
        sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
        for _, gradients in policy.seen
    ]
    assert [step for step, _ in policy.seen] == list(range(1, len(norms) + 1))
    assert max(norms) > TRAINING.clip


def test_more_parameters_than_the_budget_are_refused(gpt2):
    (one,) = first_paths(gpt2, 1)
    start = gpt2.placement(TRIAL).trainable_parameters
    policy = Scripted({1: [Grow(one, 1)]}, most=start)
    with pytest.raises(VerificationError, match=r"parameters are live after step 1, its budget is"):
        trained(gpt2, [policy])


def falling(start, step_of_the_fall):
    """A budget that nothing but a decision could keep to."""
    return lambda step: start if step < step_of_the_fall else start - 1


def test_a_budget_that_falls_is_kept_to_after_every_step(gpt2):
    (one,) = first_paths(gpt2, 1)
    start = gpt2.placement(TRIAL).trainable_parameters
    late = Scripted({4: [Prune(one, (0,))]}, most=falling(start, 3))
    with pytest.raises(
        VerificationError, match=f"are live after step 3, its budget is {start - 1:,}"
    ):
        trained(gpt2, [late])
    in_time = Scripted({3: [Prune(one, (0,))]}, most=falling(start, 3))
    _, (fit,) = trained(gpt2, [in_time])
    assert fit.trajectory.budgets == (start, start - 1)


def test_a_trial_that_begins_above_its_budget_is_refused(gpt2):
    start = gpt2.placement(TRIAL).trainable_parameters
    with pytest.raises(VerificationError, match="after step 0"):
        trained(gpt2, [Scripted(most=start - 1)])


def test_the_svd_form_trains_and_keeps_silent_columns_silent(gpt2):
    one, two = first_paths(gpt2, 2)
    script = {2: [Silence(one, frozenset({0, 1}))], 4: [Silence(one, frozenset({1}))]}
    (slot,), (fit,) = trained(gpt2, [Scripted(script, form="svd", orthogonality=0.1)])
    assert slot.own[one].gate[1] == 0
    assert slot.own[one].gate[0] != 0
    assert slot.own[two].gate[:RANK].all()
    assert fit.trajectory.ranks[one] == (4, 2, 3)
    rest = slot.at_rest()
    assert rest.placement.by_path[one].rank == 3
