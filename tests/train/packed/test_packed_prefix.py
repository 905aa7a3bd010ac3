"""The frozen prefix through the engine: kept, filed or computed anew, the trials are the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from packed_cases import CPU, Trial, case_of

from loratlas.data.rows import frozen_ids
from loratlas.train.base import load_base
from loratlas.train.packed.flow import Unit
from loratlas.train.trial import ModelRef

TRIALS = [
    Trial(rule="all @ layers(1..)", seed=0),
    Trial(rule="attention @ layers(2)", seed=1),
    Trial(rule="head", seed=0),
]
STATE = 32 * 4  # bytes of a token's hidden states


@pytest.fixture(scope="module")
def kept(gpt2):
    return gpt2.packed(TRIALS)


LIMITS = {
    "none": {"memory_limit": 0},
    "a few rows in memory": {"memory_limit": 100 * STATE},
    "a file": {"memory_limit": 0, "file_limit": 10**8},
    "a few rows each": {"memory_limit": 60 * STATE, "file_limit": 100 * STATE},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_how_much_is_kept_changes_no_trial(gpt2, kept, limits, tmp_path):
    """Rows are computed beside others when they are missing: their states are the same ones."""
    prefix = gpt2.prefix(**limits, folder=tmp_path if "file_limit" in limits else None)
    found = gpt2.packed(TRIALS, prefix=prefix)
    for one, other in zip(found, kept, strict=True):
        assert one.distance(other) <= 1e-5
        assert one.loss_distance(other) <= 1e-5
    assert prefix.memory_bytes <= limits["memory_limit"]
    assert prefix.file_bytes <= limits.get("file_limit", 0)
    assert (prefix.num_hits > 0) == (limits != LIMITS["none"])
    prefix.close()


def test_a_run_that_goes_on_reads_the_file_of_the_run_before(gpt2, kept, tmp_path):
    limits = {"memory_limit": 0, "file_limit": 10**8, "folder": tmp_path}
    first = gpt2.prefix(**limits)
    gpt2.packed(TRIALS, prefix=first)
    first.close(keep=True)
    second = gpt2.prefix(**limits)
    found = gpt2.packed(TRIALS, prefix=second)
    assert second.num_misses == 0
    assert all(one.same_bits(other) for one, other in zip(found, kept, strict=True))
    second.close()


def misses(case, prefix, rows=None):
    """How many rows of a pass were not in the prefix."""
    before = prefix.num_misses
    with case.flat().opened(case.slots(TRIALS[1:2]), prefix) as flow, torch.no_grad():
        flow.passed([Unit(0, rows or case.rows)])
    return prefix.num_misses - before


def test_one_other_token_is_a_miss(gpt2):
    prefix = gpt2.prefix()
    rows = list(gpt2.rows)
    assert misses(gpt2, prefix) == len(rows)
    assert misses(gpt2, prefix) == 0
    ids = rows[3].ids.copy()
    ids[0] += 1
    rows[3] = replace(rows[3], ids=frozen_ids(ids))
    assert misses(gpt2, prefix, rows) == 1
    rows[4] = replace(rows[4], ids=rows[4].ids[:-1], scored=rows[4].scored[:-1])
    assert misses(gpt2, prefix, rows) == 1


def test_one_other_weight_or_another_type_is_a_miss(tmp_path):
    """In the file of a run before, under the digest that the base is loaded with."""
    case = case_of("gpt2", tmp_path / "model")
    limits = {"memory_limit": 0, "file_limit": 10**8, "folder": tmp_path}

    def missed(base):
        here = replace(case, base=base)
        prefix = here.prefix(**limits)
        found = misses(here, prefix)
        prefix.close(keep=True)
        return found

    def loaded(dtype="fp32"):
        ref = ModelRef(name=str(tmp_path / "model"))
        return load_base(ref, dtype=dtype, base_dropout=0.0, device=CPU)

    assert missed(loaded()) == len(case.rows)
    assert missed(loaded()) == 0
    assert missed(loaded("bf16")) == len(case.rows)
    assert missed(loaded()) == len(case.rows)
    model = loaded().model
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] += 1e-6
    model.save_pretrained(tmp_path / "model")
    assert missed(loaded()) == len(case.rows)


def test_states_are_those_of_the_base_alone(gpt2):
    """Computed beside trials with loud adapters, and after their steps."""
    slots = gpt2.slots([Trial(rule="all", seed=0), *TRIALS[:2]])
    for slot in slots:
        for site in slot.sites.values():
            site.b.fill_(0.5)
    prefix = gpt2.prefix()
    with gpt2.flat().opened(slots, prefix) as flow, torch.no_grad():
        flow.passed([Unit(number, gpt2.rows[:4]) for number in range(3)])
    for row in gpt2.rows[:4]:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        with torch.no_grad():
            states = gpt2.base.model(ids, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            found = prefix.get(layer, row.ids)
            torch.testing.assert_close(found, states[layer][0], rtol=1e-6, atol=1e-6)


def test_a_row_that_stands_twice_in_a_pass_is_one_state(gpt2):
    prefix = gpt2.prefix()
    assert misses(gpt2, prefix, [gpt2.rows[0], gpt2.rows[1], gpt2.rows[0]]) == 3
    tokens = len(gpt2.rows[0].ids) + len(gpt2.rows[1].ids)
    assert prefix.memory_bytes == tokens * STATE
