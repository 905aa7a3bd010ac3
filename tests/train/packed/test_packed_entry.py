"""Where a trial begins to differ from its base."""

import pytest

from loratlas.placement.placement import place
from loratlas.train.packed.entry import Entry, entry_of


def entry(case, rule):
    return entry_of(place(case.anatomy, rule, rank=2, alpha=4))


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("all", Entry(0, 0)),
        ("attention @ layers(1..)", Entry(1, 0)),
        ("attention.o @ layers(2)", Entry(2, 1)),
        ("feed_forward @ layers(1)", Entry(1, 2)),
        ("feed_forward.down @ layers(1)", Entry(1, 3)),
        ("feed_forward.down @ layers(1) + attention @ layers(2)", Entry(1, 3)),
        ("head + feed_forward.down @ layers(2)", Entry(2, 3)),
        ("head", Entry(3, 0)),
    ],
)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_lowest_site_decides(request, family, rule, wanted):
    assert entry(request.getfixturevalue(family), rule) == wanted


def test_gate_and_up_read_the_same_tensor(llama):
    assert entry(llama, "feed_forward.gate @ layers(1)") == entry(
        llama, "feed_forward.up @ layers(1)"
    )


def test_an_encoder_is_passed_before_its_decoder(t5):
    assert entry(t5, "attention @ encoder @ layers(2)") == Entry(2, 0)
    assert entry(t5, "attention @ decoder @ layers(0)") == Entry(3, 0)
    assert entry(t5, "head") == Entry(6, 0)


def test_a_site_outside_the_blocks_counts_as_before_them(roberta):
    assert entry(roberta, "names(lm_head.dense)") == Entry(0, 0)
