"""Out of memory, a trial begins again with smaller micro-batches and stays the trial it is."""

from dataclasses import replace
from functools import cache
from itertools import groupby

import pytest
import torch
from reference_cases import case_of, classifier, keeper

from loratlas.placement.placement import place
from loratlas.train import probe
from loratlas.train.memory import micro_batches
from loratlas.train.reference import num_steps
from loratlas.train.reference_trainer import ReferenceTrainer
from loratlas.train.trial import ModelRef, TrainingSpec

# 13 rows are windows of 8 and 5 rows: 2 steps an epoch.
TRAINING = TrainingSpec(epochs=3, batch=8, warmup=0.2, weight_decay=0.05, clip=0.5)
OUT_OF_MEMORY = {
    "as on a GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "as on a CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
}
# fp32: the same terms are summed in another order, and AdamW divides by roots of small sums.
CLOSE = 1e-5


class Plenty:
    """Trials of a case where memory suffices, each trained once."""

    def __init__(self, case):
        self.case = case
        self.trial = cache(case.train)

    def of(self, batch):
        """The trial that asks for micro-batches of some rows in windows of eight."""
        return self.trial(replace(TRAINING, batch=batch, accumulation=8 // batch))


@pytest.fixture(scope="module")
def in_plenty(tmp_path_factory):
    return Plenty(case_of("gpt2", tmp_path_factory.mktemp("causal")))


@pytest.fixture(scope="module")
def causal(in_plenty):
    return in_plenty.case


@pytest.fixture(scope="module", params=["causal", "masked", "classes"])
def any_in_plenty(request, tmp_path_factory):
    if request.param == "causal":
        return request.getfixturevalue("in_plenty")
    folder = tmp_path_factory.mktemp(request.param)
    made = {"masked": case_of, "classes": classifier}[request.param]
    return Plenty(made("roberta", folder))


class Machine:
    """One on which passes of more than some rows fail, from some pass on.

    Args:
        base: what is trained.
        most: rows that fit.
        error: what is raised.
        after: larger passes that succeed, before others take the memory.
        backward: whether the way back fails instead of the way there.
    """

    def __init__(self, base, most, error=OUT_OF_MEMORY["as on a GPU"], after=0, backward=False):
        self.most, self.error, self.after, self.backward = most, error, after, backward
        self.num_failed = 0
        blocks = next(m for m in base.model.modules() if isinstance(m, torch.nn.ModuleList))
        self._hook = blocks[0].register_forward_hook(self, with_kwargs=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._hook.remove()

    def __call__(self, _block, positional, named, output):
        hidden = positional[0] if positional else named["hidden_states"]
        if len(hidden) <= self.most:
            return
        if self.after > 0:
            self.after -= 1
        elif self.backward:
            (output if isinstance(output, torch.Tensor) else output[0]).register_hook(self.fail)
        else:
            self.fail()

    def fail(self, *_):
        self.num_failed += 1
        raise self.error


@pytest.mark.parametrize(
    "when",
    [
        pytest.param({}, marks=pytest.mark.slow, id="at once"),
        pytest.param({"after": 3}, marks=pytest.mark.slow, id="late"),
        pytest.param({"after": 2, "backward": True}, id="backward"),
    ],
)
def test_it_is_the_trial_with_smaller_micro_batches_bit_for_bit(any_in_plenty, when, caplog):
    case, whole, smaller = any_in_plenty.case, any_in_plenty.of(8), any_in_plenty.of(4)
    with Machine(case.base, 4, **when) as machine:
        found = case.train(TRAINING)
    assert machine.num_failed == 1
    assert found.same_bits(smaller)
    assert found.fit.micro_batch == 4
    assert smaller.fit.micro_batch is None
    assert len(found.fit.losses) == len(found.fit.step_seconds) == 6
    assert found.fit.losses == pytest.approx(whole.fit.losses, rel=CLOSE)
    assert found.distance(whole) <= CLOSE
    assert found.heard[when.get("after", 0) :] == [(done, 6) for done in range(7)]
    said = "out of memory; the trial begins again with micro-batches of 4 rows, 2 in a step"
    assert said in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_it_shrinks_to_single_rows(causal, in_plenty, error):
    with Machine(causal.base, 1, error) as machine:
        found = causal.train(TRAINING)
    assert (machine.num_failed, found.fit.micro_batch) == (3, 1)
    assert found.same_bits(in_plenty.of(1))
    assert found.distance(in_plenty.of(8)) <= CLOSE


def test_what_does_not_fit_row_by_row_is_an_error(causal):
    with (
        Machine(causal.base, 0) as machine,
        pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"),
    ):
        causal.train(TRAINING)
    assert machine.num_failed == 4


def test_another_error_is_not_tried_again(causal):
    error = RuntimeError("shapes cannot be multiplied")
    with (
        Machine(causal.base, 4, error) as machine,
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
    ):
        causal.train(TRAINING)
    assert machine.num_failed == 1


@pytest.mark.slow
def test_a_trial_that_began_again_goes_on_as_it_did(causal, tmp_path):
    """What was kept with larger micro-batches is gone; what is kept now says how small they are."""
    whole = causal.train(replace(TRAINING, batch=4, accumulation=2), dropout=0.3)
    with Machine(causal.base, 4, after=4):
        stopped = causal.train(
            TRAINING, dropout=0.3, keeper=keeper(tmp_path, every_seconds=0, stop_after=4 + 3)
        )
    assert stopped.fit is None
    assert stopped.heard == [(n, 6) for n in (1, 2, 3, 4, 0, 1, 2, 3)]
    assert keeper(tmp_path).checkpoints.newest()[0] == 3
    with Machine(causal.base, 4) as machine:
        found = causal.train(TRAINING, dropout=0.3, keeper=keeper(tmp_path))
    assert machine.num_failed == 0
    assert found.heard[0] == (3, 6)
    assert found.fit.micro_batch == 4
    assert found.same_bits(whole)


def test_out_of_memory_after_going_on_begins_at_the_beginning(causal, in_plenty, tmp_path):
    causal.train(TRAINING, keeper=keeper(tmp_path, stop_after=3))
    with Machine(causal.base, 4):
        found = causal.train(TRAINING, keeper=keeper(tmp_path))
    assert found.heard == [(3, 6), *((done, 6) for done in range(7))]
    assert found.same_bits(in_plenty.of(4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_rows", "batch", "accumulation"),
    [(10, 4, 1), (12, 4, 2), (13, 6, 1), (9, 3, 2), (5, 8, 1), (13, 2, 3)],
)
def test_trainer_reads_the_same_rows_in_every_step(
    causal, monkeypatch, num_rows, batch, accumulation
):
    """Held against Trainer itself: what it hands to the model, step by step."""
    read = []
    training_step = ReferenceTrainer.training_step

    def recorded(self, model, inputs, *more, **named):
        seen = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        rows = [tuple(ids[mask == 1].tolist()) for ids, mask in seen]
        read.append((self.state.global_step, rows))
        return training_step(self, model, inputs, *more, **named)

    monkeypatch.setattr(ReferenceTrainer, "training_step", recorded)
    some = replace(causal, rows=causal.rows[:num_rows])
    asked = TrainingSpec(epochs=2, batch=batch, accumulation=accumulation)
    found = []
    for training in micro_batches(asked, num_rows):
        read.clear()
        some.train(training, rule="attention @ last(1)")
        assert max(len(rows) for _, rows in read) == min(training.batch, num_rows)
        steps = groupby(read, key=lambda step_and_rows: step_and_rows[0])
        found.append([[row for _, rows in parts for row in rows] for _, parts in steps])
    assert len(found) > 1
    assert all(steps == found[0] for steps in found)
    assert len(found[0]) == num_steps(asked, num_rows)


def test_a_probe_does_not_measure_another_trial(causal, monkeypatch):
    """Its figures are of the micro-batches that were asked for, or none."""
    monkeypatch.setattr(probe, "_load", lambda _: causal.base)
    task = probe.ProbeTask(
        model=ModelRef(name=causal.base.ref.name),
        device="cpu",
        placement=place(causal.anatomy, "all", rank=2),
        rows=causal.rows,
        training=TRAINING,
        lora_dropout=0.0,
        num_threads=1,
    )
    with (
        Machine(causal.base, 4),
        pytest.raises(MemoryError, match="micro-batches of 8 rows do not fit; of 4 they do"),
    ):
        probe.measure(task)
