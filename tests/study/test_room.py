"""How many trials train together, by hand: 16 bytes a parameter, a share of what is free."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from loratlas.data.rows import TokenizedRow
from loratlas.dynamic.spec import PolicySpec
from loratlas.placement.placement import place
from loratlas.placement.rules import parse
from loratlas.study import engines
from loratlas.study.moving import Moving
from loratlas.study.resolve import ResolvedPlacement
from loratlas.study.room import Room, free_bytes, room_for
from loratlas.train.packed.elastic import elastic_bytes
from loratlas.train.trial import TrainingSpec

CPU = torch.device("cpu")
TRAINING = TrainingSpec(steps=2, batch=4, accumulation=2)
PLENTY = 2**40


def rows(length: int, count: int = 3) -> list[TokenizedRow]:
    ids, marks = np.zeros(length, np.int32), np.ones(length, np.bool_)
    return [TokenizedRow(row=n, ids=ids, scored=marks, num_bytes=1) for n in range(count)]


@pytest.fixture
def room(anatomy):
    each = engines._adapter_bytes(resolved(place(anatomy, "all", rank=2, alpha=4)))

    def of(*, free=PLENTY, free_host=PLENTY, length=32, device=CPU, training=TRAINING, **more):
        return room_for(
            rows(length), training, bytes_per_trial=each,
            free=free, free_host=free_host, device=device, bytes_per_token=1000.0, **more,
        )  # fmt: skip

    return of


def resolved(placement, moving=None):
    return ResolvedPlacement(
        name="x", rule=parse("all"), placement=placement, matched_to=None, lints=(), moving=moving
    )


def test_an_optimiser_step_has_enough_tokens_and_no_more(room):
    # Windows of 8 rows: 4,096 tokens of them are 16 trials of 32 tokens a row.
    assert room(length=32).trials == 16
    assert room(length=64).trials == 8
    assert room(length=32, training=replace(TRAINING, accumulation=8)).trials == 4
    # Beside others a trial is cheaper, however long its window.
    assert room(length=2000).trials == 4
    assert room(length=1).trials == 64
    assert room(length=32, device=torch.device("cuda")).trials == 64


def test_adapters_and_optimiser_fit_a_fifth_of_what_is_free(room, anatomy):
    each = 16 * place(anatomy, "all", rank=2, alpha=4).trainable_parameters
    assert room(free=5 * 3 * each + 50).trials == 3
    assert room(free=5 * each - 50).trials == 1
    assert room(free=5 * 3 * each + 50, most=2).trials == 2
    assert room(free=5 * 3 * each + 50, most=100).trials == 3


@pytest.mark.parametrize("policy", ["saliency", "adalora"])
def test_a_trial_that_moves_takes_room_for_the_ranks_that_it_may_come_to(anatomy, policy):
    start = place(anatomy, "all", rank=3, alpha=6)
    spec = PolicySpec.read({"policy": policy})
    moving = Moving(spec=spec, start=start, target=2 * start.trainable_parameters // 3)
    found = engines._adapter_bytes(resolved(start, moving))
    assert found == elastic_bytes(start, moving.capacity, spec.form)
    assert found > engines._adapter_bytes(resolved(start))
    if policy == "saliency":  # four times the ranks, and five vectors in place of four
        assert found == 20 * 4 * start.trainable_parameters


def test_what_a_person_says_goes_before_what_is_usual(room):
    assert room(length=2000, most=100).trials == 100
    assert room(length=1, most=1).trials == 1
    assert (room(most=3).most, room().most) == (3, None)


def test_a_pass_fits_half_of_what_is_free(room):
    assert room().tokens_per_pass == 1024
    assert room(free=400_000).tokens_per_pass == 200
    assert room(free=0) == Room(trials=1, tokens_per_pass=1, prefix_bytes=int(PLENTY * 0.15))


def test_the_prefix_takes_of_the_machines_memory_and_not_of_the_devices(room):
    cuda = torch.device("cuda")
    assert room(free=PLENTY, free_host=1000, device=cuda).prefix_bytes == 150


def test_free_memory_is_asked_of_the_machine():
    assert 2**20 < free_bytes(CPU) < 2**50
