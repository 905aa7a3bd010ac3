from dataclasses import replace

from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters
from loratlas.train.probe import TIMED_STEPS, ProbeTask, _tokens_of_steps, probe
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
    assert found.peak_memory_bytes is None or found.peak_memory_bytes > 0


def test_tokens_are_counted_in_the_order_of_training(prepared):
    rows = prepared.train.rows
    training = TrainingSpec(batch=5, accumulation=2, steps=6)
    found = _tokens_of_steps(rows, training)
    order = row_order(0, 0, len(rows))
    assert found[0] == sum(len(rows[index].ids) for index in order[:10])
    # 32 rows: three windows of 10 and one of 2, then the next epoch.
    assert found[3] == sum(len(rows[index].ids) for index in order[30:])
    assert len(found) == 6


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
