import sys
from dataclasses import replace
from statistics import median

from loratlas.placement.placement import place
from loratlas.study.trial_runner import score_rows
from loratlas.train.adapters import new_adapters
from loratlas.train.probe import TIMED_STEPS, WARMUP_STEPS, ProbeTask, _windows, measure, probe
from loratlas.train.randomness import row_order
from loratlas.train.reference import ENGINE, fit
from loratlas.train.trial import ModelRef, TrainingSpec


def task(base, anatomy, prepared, **changes):
    placement = place(anatomy, "all", rank=2)
    return ProbeTask(
        model=ModelRef(name=base.ref.name),
        device="cpu",
        placement=placement,
        rows=prepared.train.rows,
        training=TrainingSpec(batch=4),
        lora_dropout=0.0,
        num_threads=1,
        scored=prepared.test.rows,
        score=score_rows,
    )


def test_a_probe_measures_in_a_process_of_its_own(base, anatomy, prepared):
    found = probe(task(base, anatomy, prepared))
    assert found.engine == ENGINE
    assert found.num_steps == TIMED_STEPS
    assert 0 < found.seconds_per_step < 60
    lengths = [len(row.ids) for row in prepared.train.rows]
    # The rate is tokens over seconds of the same steps: between the shortest and longest batches.
    per_step = found.tokens_per_second * found.seconds_per_step
    assert 4 * min(lengths) / 3 < per_step < 3 * 4 * max(lengths)
    assert len(found.step_seconds) == len(found.forward_seconds) == TIMED_STEPS
    assert found.seconds_per_step == median(found.step_seconds)
    assert sum(found.forward_seconds) < sum(found.step_seconds)
    # Padding counts here: at least the tokens, at most all rows as long as the longest.
    assert per_step <= found.num_positions / TIMED_STEPS * 1.5
    assert found.num_positions <= TIMED_STEPS * 4 * max(lengths)
    assert list(found.memory) == ["load", "train", "score"]
    if sys.platform == "linux":
        for phase in found.memory.values():
            assert 0 < phase["before"] <= phase["peak"]
            assert phase["reserved"] is None
        train = found.memory["train"]
        assert found.peak_memory_bytes == train["peak"] - train["before"]


def test_what_is_not_asked_for_is_not_scored(base, anatomy, prepared):
    asked = replace(task(base, anatomy, prepared), score=None)
    assert list(measure(asked).memory) == ["load", "train"]


def test_a_model_that_the_cost_model_stumbles_over_keeps_its_seconds(
    base, anatomy, prepared, monkeypatch
):
    def stumble(*_, **__):
        raise KeyError("n_head")

    monkeypatch.setattr("loratlas.train.operations.read_blueprint", stumble)
    found = measure(task(base, anatomy, prepared))
    assert found.seconds_per_step > 0
    assert (found.flops, found.roles) == ({"unknown": "KeyError: 'n_head'"}, [])


def test_timed_steps_have_the_rows_of_training(prepared):
    rows = prepared.train.rows
    found = _windows(rows, TrainingSpec(batch=5, accumulation=2))
    first, second = (row_order(0, epoch, len(rows)).tolist() for epoch in (0, 1))
    # 32 rows: three windows of 10 and one of 2, then the next epoch; two windows are warm-up.
    expected = [first[20:30], first[30:], second[:10], second[10:20], second[20:30], second[30:]]
    assert WARMUP_STEPS == 2
    assert [[row.row for row in window] for window in found] == [
        [rows[index].row for index in window] for window in expected
    ]


def test_a_probe_leaves_the_trials_alone(base, anatomy, prepared):
    placement = place(anatomy, "all", rank=2)
    training = TrainingSpec(batch=4, steps=2)

    def losses():
        with new_adapters(base, placement, seed=0, dropout=0.0) as model:
            return fit(
                base, model, prepared.train.rows, training, learning_rate=1e-2, seed=0
            ).losses

    first = losses()
    probe(replace(task(base, anatomy, prepared), placement=placement))
    assert losses() == first
