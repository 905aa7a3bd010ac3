"""A trial's bits do not depend on its pack, at widths where products are divided by their rows."""

import pytest
import torch
from packed_cases import Passes, Trial, case_of
from transformers import GPT2Config, GPT2LMHeadModel

import families
from loratlas.train.trial import TrainingSpec

# A rate at which one wrong bit grows by orders of magnitude within the trial.
TRAINING = TrainingSpec(epochs=3, batch=3, accumulation=2, clip=1.0)
TRIALS = [
    Trial(rule="all", rate=1e-2),
    Trial(rule="attention", rate=1e-2, seed=1),
    Trial(rule="feed_forward @ layers(1)", rate=1e-2, rank=2),
]


def wide():
    config = GPT2Config(
        n_embd=256, n_layer=2, n_head=4, n_positions=64, vocab_size=400, bos_token_id=2,
        eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(families.EVERY, "gpt2", wide)
        return case_of("gpt2", tmp_path_factory.mktemp("wide"))


@pytest.mark.parametrize("company", [[0], [1, 0], [2, 1, 0], [0, 0, 0, 1]], ids=str)
def test_a_trial_has_the_same_bits_in_any_pack(case, company):
    together = case.packed(TRIALS, training=TRAINING)
    found = case.packed([TRIALS[number] for number in company], training=TRAINING)
    for number, trained in zip(company, found, strict=True):
        assert trained.same_bits(together[number])


def test_passes_of_another_size_give_the_same_bits_while_no_window_is_divided(case):
    longest = max(len(row.ids) for row in case.rows)
    small = case.packed(TRIALS, training=TRAINING, passes=Passes(6 * longest))
    large = case.packed(TRIALS, training=TRAINING)
    assert all(a.same_bits(b) for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize("rows", [8, 12, 60, 333])
@pytest.mark.parametrize(("d_in", "d_out"), [(1024, 256), (3072, 768), (1024, 4096)])
def test_a_row_of_a_product_has_the_same_bits_whatever_stands_beside_it(rows, d_in, d_out):
    chance = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, generator=chance) for shape in ((512, d_in), (d_in, d_out)))
    assert torch.equal((x @ w)[:rows], x[:rows] @ w)
