"""All trials of a pack are scored together; each gets what `likelihood.score` gives it alone."""

import pytest
import torch

import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.measure import packed as packed_module
from loratlas.measure.likelihood import score
from loratlas.measure.packed import score_packed
from loratlas.placement.placement import place
from loratlas.train.adapters import saved_adapters
from loratlas.train.base import load_base
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.opening import PackedBase, open_base
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.saved import save_slot
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache
from loratlas.train.trial import ModelRef, TrainingSpec

CPU = torch.device("cpu")
DATA = DataSpec(
    source="rows.jsonl", format="prompt_completion", train=16, validation=2, test=13, max_length=48
)
TRAINING = TrainingSpec(steps=12, batch=8)
RULES = ("all", "attention @ last(1)", "feed_forward @ layers(1..)", "all | head")


class Bench:
    """A model of a family taken apart, with trials of several placements on it."""

    def __init__(self, family, folder):
        families.write(family, folder)
        (folder / "rows.jsonl").write_text(families.prompt_rows(60))
        ref = ModelRef(name=str(folder))
        self.folder = folder
        self.base = load_base(ref, dtype="fp32", base_dropout=0.0, device=CPU)
        data = prepare(DATA, self.base.tokenizer, root=folder, task=self.base.task)
        anatomy = read(str(folder))
        self.rows = data.test.rows
        self.opened = open_base(self.base, anatomy, data.train.rows, data.masking)
        assert isinstance(self.opened, PackedBase), self.opened
        self.slots = self._trained([place(anatomy, rule, rank=4, alpha=8) for rule in RULES], data)

    def _trained(self, placements, data):
        """Adapters that change what the base says by far more than rounding does."""
        slots = [
            Slot.new(placement, seed=number, dropout=0.5, device=CPU)
            for number, placement in enumerate(placements)
        ]
        with self.opened.opened(slots, self._prefix()) as flow:
            fit_pack(
                flow, data.train.rows, TRAINING, learning_rates=[3e-2] * len(slots),
                passes=Passes(10_000), masking=data.masking,
            )  # fmt: skip
        return slots

    def _prefix(self):
        dtype = next(self.base.model.parameters()).dtype
        return PrefixCache(base_digest="", dtype=dtype, memory_limit=2**20)

    def scores(self, rows, slots=None):
        with self.opened.opened(self.slots if slots is None else slots, self._prefix()) as flow:
            return score_packed(flow, rows)

    def alone(self, slot, rows):
        save_slot(slot, self.folder / "adapter", self.base)
        with saved_adapters(self.base, self.folder / "adapter", slot.placement) as model:
            return score(model, rows, collator=self.base.collator, device=CPU)


@pytest.fixture(scope="module", params=["gpt2", "llama", "bert", "t5"])
def bench(request, tmp_path_factory):
    return Bench(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Bench("gpt2", tmp_path_factory.mktemp("gpt2"))


def test_every_trial_gets_the_score_that_it_gets_alone(bench):
    rows = bench.rows[::-1]
    bare = score(bench.base.model, rows, collator=bench.base.collator, device=CPU)
    for slot, found in zip(bench.slots, bench.scores(rows), strict=True):
        wanted = bench.alone(slot, rows)
        assert found.row.tolist() == wanted.row.tolist() == [row.row for row in rows]
        # The same sums in fp32, taken in another order.
        assert found.nll == pytest.approx(wanted.nll, rel=1e-5)
        assert found.num_correct.tolist() == wanted.num_correct.tolist()
        assert found.num_tokens.tolist() == wanted.num_tokens.tolist()
        assert found.num_bytes.tolist() == wanted.num_bytes.tolist()
        assert (found.label, found.predicted) == (None, None)
        assert found.nll != pytest.approx(bare.nll, rel=1e-4), "the adapters take part"


def test_it_does_not_depend_on_how_rows_and_trials_are_divided(gpt2, monkeypatch):
    whole = gpt2.scores(gpt2.rows)
    longest = max(row.num_read for row in gpt2.rows)
    # Four trials read one row at least; where that is too much, not all of them read together.
    for most in (9 * longest, 2 * longest, 1):
        monkeypatch.setattr(packed_module, "_MOST_TOKENS", most)
        tokens = counted(monkeypatch)
        for found, wanted in zip(gpt2.scores(gpt2.rows), whole, strict=True):
            assert found.nll == pytest.approx(wanted.nll, rel=1e-6)
            assert found.num_correct.tolist() == wanted.num_correct.tolist()
        assert max(tokens) <= max(most, longest)


def counted(monkeypatch) -> list[int]:
    """Tokens of every pass from now on."""
    tokens: list[int] = []

    def sums(flow, passed):
        tokens.append(sum(row.num_read for unit in passed.units for row in unit.rows))
        return real(flow, passed)

    real = packed_module._sums
    monkeypatch.setattr(packed_module, "_sums", sums)
    return tokens


def test_it_does_not_depend_on_who_is_scored_beside(gpt2):
    together = gpt2.scores(gpt2.rows)
    for slot, wanted in zip(gpt2.slots, together, strict=True):
        (found,) = gpt2.scores(gpt2.rows, [slot])
        assert found.nll == pytest.approx(wanted.nll, rel=1e-6)


def test_logits_are_made_a_part_at_a_time(gpt2, monkeypatch):
    from loratlas.train.packed import loss

    whole = gpt2.scores(gpt2.rows)
    monkeypatch.setattr(loss, "_MOST_LOGITS", 400 * 5)  # five predictions of a vocabulary of 400
    for found, wanted in zip(gpt2.scores(gpt2.rows), whole, strict=True):
        assert found.nll == pytest.approx(wanted.nll, rel=1e-6)
        assert found.num_correct.tolist() == wanted.num_correct.tolist()


def test_dropout_of_the_adapters_leaves_nothing_out(gpt2):
    first, second = gpt2.scores(gpt2.rows), gpt2.scores(gpt2.rows)
    for found, again in zip(first, second, strict=True):
        assert found.nll.tolist() == again.nll.tolist()


def test_nothing_to_score(gpt2):
    for found in gpt2.scores([]):
        assert found.nll.shape == found.row.shape == (0,)
    assert gpt2.scores(gpt2.rows, []) == []
