"""How many trials train together, by hand: 16 bytes a parameter, a share of what is free."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import place
from loratlas.study.room import Room, free_bytes, room_for
from loratlas.train.trial import TrainingSpec

CPU = torch.device("cpu")
TRAINING = TrainingSpec(steps=2, batch=4, accumulation=2)
PLENTY = 2**40


def rows(length: int, count: int = 3) -> list[TokenizedRow]:
    ids, marks = np.zeros(length, np.int32), np.ones(length, np.bool_)
    return [TokenizedRow(row=n, ids=ids, scored=marks, num_bytes=1) for n in range(count)]


@pytest.fixture
def room(anatomy):
    placements = [place(anatomy, rule, rank=2, alpha=4) for rule in ("all", "attention")]

    def of(*, free=PLENTY, free_host=PLENTY, length=32, device=CPU, training=TRAINING, **more):
        return room_for(
            placements, rows(length), training,
            free=free, free_host=free_host, device=device, bytes_per_token=1000.0, **more,
        )  # fmt: skip

    of.largest = max(placement.trainable_parameters for placement in placements)
    return of


def test_an_optimiser_step_has_enough_tokens_and_no_more(room):
    # Windows of 8 rows: 4,096 tokens of them are 16 trials of 32 tokens a row.
    assert room(length=32).trials == 16
    assert room(length=64).trials == 8
    assert room(length=32, training=replace(TRAINING, accumulation=8)).trials == 4
    # Beside others a trial is cheaper, however long its window.
    assert room(length=2000).trials == 4
    assert room(length=1).trials == 64
    assert room(length=32, device=torch.device("cuda")).trials == 64


def test_adapters_and_optimiser_fit_a_fifth_of_what_is_free(room):
    each = 16 * room.largest
    assert room(free=5 * 3 * each + 50).trials == 3
    assert room(free=5 * each - 50).trials == 1
    assert room(free=5 * 3 * each + 50, most=2).trials == 2
    assert room(free=5 * 3 * each + 50, most=100).trials == 3


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
