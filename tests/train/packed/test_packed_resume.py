"""A pack that was stopped or killed ends with the bits of one that never was."""

import json
import math
from dataclasses import dataclass, replace
from itertools import accumulate, count, repeat

import pytest
import torch
from packed_cases import CPU, TRAINING, UNLIMITED, Case, Trial

from loratlas.dynamic.spec import PolicySpec, build, capacities, initial_placement, is_query_or_key
from loratlas.errors import VerificationError
from loratlas.placement.placement import LoraSpec
from loratlas.train.checkpoint import Checkpoints, Keeper, StopRequested
from loratlas.train.packed import fit as fit_module
from loratlas.train.packed.elastic import ElasticSlot
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.flow import Flow
from loratlas.train.packed.passes import Passes
from loratlas.train.reference import num_steps
from loratlas.train.trial import TrainingSpec

MIXED = (
    Trial(rule="all", rate=1e-2),
    Trial(rule="attention", rate=3e-3, seed=1),
    Trial(rule="feed_forward @ layers(1)", rate=1e-2, rank=2),
)
DROPPING = tuple(replace(trial, dropout=0.3) for trial in MIXED)
WILD = replace(MIXED[1], rate=1e30)
LONGER = replace(TRAINING, epochs=4)  # 12 steps
# Decisions after steps 3, 5, 7 and 9.
OFTEN = {"warmup": 1, "final": 3, "interval": 2}
SALIENCY = {"policy": "saliency", "explore": 0.3, **OFTEN}
ADALORA = {"policy": "adalora", **OFTEN}
ENTROPY = {"policy": "attention_entropy", "explore": 0.3, **OFTEN}


class Killed(BaseException):
    """What a process does not live to see."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """What is trained; every call of `train` makes slots, policies and caches anew."""

    case: Case
    trials: tuple[Trial, ...] = MIXED
    policies: tuple[dict, ...] = ()
    """Of trials that move; they stand before the others."""
    rate: float = 1e-2
    """Of trials that move."""
    training: TrainingSpec = TRAINING
    whole: bool = False

    @property
    def total(self):
        return num_steps(self.training, len(self.case.rows))

    def train(self, *, keeper=None, on_step=None, passes=None):
        moving = [self._moving(options) for options in self.policies]
        slots = [slot for slot, _ in moving] + self.case.slots(list(self.trials))
        base = self.case.whole() if self.whole else self.case.flat()
        self.case.base.model.train()
        try:
            with base.opened(slots, self.case.prefix()) as flow:
                fits = fit_pack(
                    flow, self.case.rows, self.training,
                    learning_rates=[self.rate] * len(moving) + [t.rate for t in self.trials],
                    passes=passes or Passes(UNLIMITED),
                    masking=self.case.masking,
                    policies={number: policy for number, (_, policy) in enumerate(moving)},
                    on_step=on_step,
                    keeper=keeper,
                )  # fmt: skip
        finally:
            self.case.base.model.eval()
        return [told(slot, fit) for slot, fit in zip(slots, fits, strict=True)]

    def _moving(self, options):
        spec = PolicySpec.read(options)
        candidates = self.case.placement(Trial(rule="all"))
        target = candidates.trainable_parameters // 2
        start = initial_placement(spec, candidates, target, LoraSpec(rank=4, alpha=8))
        sites = [adapter.site for adapter in start.adapters]
        priors = {site.path: 0.8 + 0.1 * site.layer for site in sites if is_query_or_key(site)}
        policy = build(
            spec, placement=start, target_parameters=target, total_steps=self.total,
            priors=priors if spec.name == "attention_entropy" else None,
        )  # fmt: skip
        room = capacities(spec, start)
        slot = ElasticSlot.begin(
            start, room, form=policy.form, seed=3, dropout=0.2, device=CPU
        )  # fmt: skip
        return slot, policy


@dataclass(frozen=True, kw_only=True)
class Told:
    """All that comes out of a trial."""

    values: torch.Tensor
    columns: dict | None
    losses: tuple[float, ...] | None
    trajectory: dict | None
    error: str | None
    seconds: tuple[float, ...] | None


def told(slot, fit):
    went = hasattr(fit, "losses")
    return Told(
        values=slot.values.detach().clone(),
        columns=dict(slot.columns) if isinstance(slot, ElasticSlot) else None,
        losses=fit.losses if went else None,
        trajectory=fit.trajectory.to_json() if went and fit.trajectory else None,
        error=None if went else str(fit),
        seconds=fit.step_seconds if went else None,
    )


def assert_same(found, wanted):
    """All but times is the same, to the last bit."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.losses == other.losses
        assert one.trajectory == other.trajectory
        assert one.columns == other.columns
        assert one.error == other.error
        # As bits, because a trial that diverged may hold values that are no numbers.
        assert torch.equal(one.values.view(torch.int32), other.values.view(torch.int32))


SCENARIOS = {
    "mixed, accumulation, two epochs": ("gpt2", {}),
    "linear rates, single micro-batches": (
        "gpt2",
        {"training": replace(TRAINING, scheduler="linear", accumulation=1)},
    ),
    "constant rates, no clipping": (
        "gpt2",
        {"training": replace(TRAINING, scheduler="constant", warmup=0.0, clip=None)},
    ),
    "dropout": ("gpt2", {"trials": DROPPING}),
    "masked": ("roberta", {"trials": DROPPING}),
    "rows filled up": ("t5", {"trials": DROPPING[:2], "whole": True}),
    "one that diverges": ("gpt2", {"trials": (MIXED[0], WILD, MIXED[2])}),
    "all policies beside still trials": (
        "llama",
        {
            "policies": (SALIENCY, {**ADALORA, "unit": "ranks"}, ENTROPY),
            "trials": (DROPPING[0], WILD),
            "training": LONGER,
        },
    ),
}


@pytest.fixture(scope="module", params=SCENARIOS.values(), ids=SCENARIOS)
def scenario(request):
    """A pack, and what comes out of it without a stop."""
    family, options = request.param
    pack = Pack(case=request.getfixturevalue(family), **options)
    return pack, pack.train()


def keeper_of(folder, *, every=math.inf, stop_after=None):
    """Keep what a pack needs; a stop is asked for at some step, counted in this process."""
    steps = count(1)
    return Keeper(
        Checkpoints(folder, {"trials": ["one", "two"]}),
        every_seconds=every,
        stop=lambda: next(steps) == stop_after,
    )


def killed_at(step):
    """Return an `on_step` at which a process ends, the step done and not yet kept."""

    def on_step(done, _total):
        if done == step:
            raise Killed

    return on_step


def until_stopped(pack, folder, stop_after):
    with pytest.raises(StopRequested):
        pack.train(keeper=keeper_of(folder, stop_after=stop_after))


def resumed(pack, folder, first, **more):
    """Train to the end; it goes on after some step."""
    heard = []
    found = pack.train(keeper=keeper_of(folder), on_step=lambda *step: heard.append(step), **more)
    assert heard == [(step, pack.total) for step in range(first, pack.total + 1)]
    return found


def after_the_first_step(total):
    return [1]


def twice(total):
    return [total // 3, 2 * total // 3]


def before_the_last_step(total):
    return [total - 1]


def after_the_last_step(total):
    return [total]


STOPS = (after_the_first_step, twice, before_the_last_step, after_the_last_step)


@pytest.mark.parametrize("stops", STOPS, ids=lambda stops: stops.__name__)
def test_a_pack_that_is_stopped_goes_on_as_if_it_never_was(scenario, stops, tmp_path):
    pack, wanted = scenario
    at = stops(pack.total)
    for step, before in zip(at, [0, *at], strict=False):
        until_stopped(pack, tmp_path, step - before)
    assert_same(resumed(pack, tmp_path, at[-1]), wanted)


def test_a_pack_that_is_killed_goes_on_from_what_was_kept(scenario, tmp_path):
    """The steps between the kept one and the kill are done again, to the same end."""
    pack, wanted = scenario
    third = pack.total // 3
    until_stopped(pack, tmp_path, third)
    for _ in range(2):
        with pytest.raises(Killed):
            pack.train(keeper=keeper_of(tmp_path), on_step=killed_at(2 * third))
    assert_same(resumed(pack, tmp_path, third), wanted)


def test_a_pack_that_is_killed_at_every_step_ends(scenario, tmp_path):
    pack, wanted = scenario
    for step in range(2, pack.total + 1):
        with pytest.raises(Killed):
            pack.train(keeper=keeper_of(tmp_path, every=0), on_step=killed_at(step))
    assert_same(resumed(pack, tmp_path, pack.total - 1), wanted)


def test_the_trials_of_these_tests_do_what_they_are_there_for(gpt2, llama):
    """Columns are pruned, grown and silenced before and after the stops; a trial diverges."""
    pack = Pack(case=llama, policies=(SALIENCY, ADALORA, ENTROPY), trials=(), training=LONGER)
    for moved in pack.train():
        assert moved.trajectory["steps"][0] == 0
        assert min(moved.trajectory["steps"][1:]) <= pack.total // 3
        assert max(moved.trajectory["steps"]) > 2 * pack.total // 3
    kinds = [{each["kind"] for each in t.trajectory["decisions"]} for t in pack.train()]
    assert {"prune", "grow"} <= kinds[0]
    assert {"silence", "prune"} <= kinds[1]
    wild = Pack(case=gpt2, trials=(WILD,)).train()[0]
    step = int(wild.error.split()[-3])
    assert Pack(case=gpt2).total // 3 < step <= 2 * Pack(case=gpt2).total // 3


def test_a_keeper_changes_nothing_of_a_pack_that_is_not_stopped(scenario, tmp_path):
    pack, wanted = scenario
    assert_same(pack.train(keeper=keeper_of(tmp_path, every=0)), wanted)


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(gpt2, tmp_path):
    pack = Pack(case=gpt2)
    with pytest.raises(Killed):
        pack.train(keeper=keeper_of(tmp_path, every=0), on_step=killed_at(5))
    newest = tmp_path / "step-00000004" / "state.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    assert_same(resumed(pack, tmp_path, 3), pack.train())


def test_what_is_kept_is_safetensors_and_json(gpt2, tmp_path):
    until_stopped(Pack(case=gpt2), tmp_path, 2)
    found = sorted(path.name for path in (tmp_path / "step-00000002").iterdir())
    assert found == ["manifest.json", "state.json", "state.safetensors"]


def test_passes_stay_as_small_as_memory_made_them(gpt2, tmp_path, monkeypatch):
    """Windows are divided in two, so that their sums are taken in another order."""
    pack = Pack(case=gpt2, trials=MIXED[:1])
    real = Flow.passed
    window = max(sum(sorted(row.num_read for row in gpt2.rows)[-6:]), 1)

    def small(flow, units, **more):
        units = list(units)
        if sum(row.num_read for unit in units for row in unit.rows) > window // 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(flow, units, **more)

    monkeypatch.setattr(Flow, "passed", small)
    without_stop = Passes(UNLIMITED)
    wanted = pack.train(passes=without_stop)
    assert without_stop.num_halved > 0
    until_stopped(pack, tmp_path, pack.total - 1)  # every halving is behind it
    monkeypatch.setattr(Flow, "passed", real)
    passes = Passes(UNLIMITED)
    assert_same(resumed(pack, tmp_path, pack.total - 1, passes=passes), wanted)
    assert (passes.limit, passes.num_halved) == (without_stop.limit, without_stop.num_halved)


def test_a_smaller_limit_that_is_asked_for_holds(gpt2, tmp_path):
    pack = Pack(case=gpt2)
    until_stopped(pack, tmp_path, 2)
    passes = Passes(50)
    resumed(pack, tmp_path, 2, passes=passes)
    assert (passes.limit, passes.num_halved) == (50, 0)


def test_steps_keep_the_time_that_they_took(gpt2, tmp_path, monkeypatch):
    pack = Pack(case=gpt2, trials=MIXED[:1])

    def tick_by(seconds):
        clock = accumulate(repeat(seconds))
        monkeypatch.setattr(fit_module.time, "perf_counter", lambda: next(clock))

    tick_by(1.0)
    until_stopped(pack, tmp_path, 2)
    tick_by(100.0)
    (found,) = resumed(pack, tmp_path, 2)
    assert found.seconds == (1.0, 1.0, 100.0, 100.0, 100.0, 100.0)


def test_a_state_of_other_adapters_is_refused(gpt2, tmp_path):
    """The identity should have told them apart; what it missed is found before a step is done."""
    until_stopped(Pack(case=gpt2), tmp_path, 2)
    other = Pack(case=gpt2, trials=(replace(MIXED[0], rank=3), *MIXED[1:]))
    with pytest.raises(VerificationError, match=r"the state that was kept does not fit what is"):
        other.train(keeper=keeper_of(tmp_path))


def test_losses_are_kept_to_the_last_bit(gpt2, tmp_path):
    pack = Pack(case=gpt2)
    until_stopped(pack, tmp_path, 3)
    kept = json.loads((tmp_path / "step-00000003" / "state.json").read_text())
    losses = [course["losses"] for course in kept["parts"]["courses"]["parts"].values()]
    assert losses == [list(trial.losses[:3]) for trial in pack.train()]
