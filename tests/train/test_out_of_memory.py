"""What running out of memory looks like, and which micro-batches read the same steps."""

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loratlas.train.memory import is_out_of_memory, micro_batches
from loratlas.train.reference import steps_per_epoch
from loratlas.train.trial import TrainingSpec


def test_what_says_that_memory_does_not_suffice():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate "
            "memory)"
        )
    )
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 18.02 GB)"))
    assert is_out_of_memory(
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    )
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_torch_itself_says_so_on_this_machine():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)


def sizes(batch, accumulation, num_rows):
    training = TrainingSpec(batch=batch, accumulation=accumulation)
    return [(each.batch, each.accumulation) for each in micro_batches(training, num_rows)]


def test_micro_batches_shrink_by_the_smallest_divisor():
    assert sizes(8, 1, 100) == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert sizes(9, 2, 100) == [(9, 2), (3, 6), (1, 18)]
    assert sizes(7, 1, 100) == [(7, 1), (1, 7)]
    assert sizes(12, 1, 100) == [(12, 1), (6, 2), (3, 4), (1, 12)]
    assert sizes(1, 4, 100) == [(1, 4)]


def test_a_size_that_holds_all_rows_again_is_not_tried():
    assert sizes(64, 1, 10) == [(64, 1), (8, 8), (4, 16), (2, 32), (1, 64)]
    assert sizes(8, 2, 8) == [(8, 2), (4, 4), (2, 8), (1, 16)]
    assert sizes(8, 1, 1) == [(8, 1)]


def steps_of(num_rows, training):
    """Row numbers of each step of an epoch: Trainer's micro-batches, then its groups of them."""
    rows = list(range(num_rows))
    batches = [rows[i : i + training.batch] for i in range(0, num_rows, training.batch)]
    groups = range(0, len(batches), training.accumulation)
    return [list(chain(*batches[i : i + training.accumulation])) for i in groups]


@given(batch=st.integers(1, 40), accumulation=st.integers(1, 6), num_rows=st.integers(1, 200))
def test_every_step_reads_the_same_rows_however_small_the_micro_batches(
    batch, accumulation, num_rows
):
    asked = TrainingSpec(batch=batch, accumulation=accumulation)
    found = micro_batches(asked, num_rows)
    assert found[0] == asked
    assert found[-1].batch == 1 or num_rows == 1
    whole = steps_of(num_rows, asked)
    for larger, each in pairwise(found):
        assert each.batch < min(larger.batch, num_rows)
        assert steps_of(num_rows, each) == whole
        assert steps_per_epoch(each, num_rows) == len(whole)
