"""Entropies by hand and by loops, indifference to padding, and a base that is given back."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_in import StandIn, placement

import anatomies
import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.data.spec import DataSpec
from loratlas.dynamic.attention_entropy import (
    Layer,
    attention_entropies,
    normalised_entropies,
    priors,
)
from loratlas.dynamic.spec import PolicySpec, build, initial_placement
from loratlas.errors import DataError, ModelError, PlacementError
from loratlas.placement.placement import LoraSpec, place
from loratlas.train.base import load_base
from loratlas.train.trial import ModelRef

# Sums over some thousand weights in fp32, against float64.
CLOSE = 1e-5


@pytest.fixture(scope="module", params=["gpt2", "llama", "mixtral", "bert", "t5", "bart"])
def case(request, tmp_path_factory):
    """A base, its anatomy, and rows of different lengths."""
    folder = families.write(request.param, tmp_path_factory.mktemp(request.param))
    base = load_base(
        ModelRef(name=str(folder)), dtype="fp32", base_dropout=0.0, device=torch.device("cpu")
    )
    (folder / "rows.jsonl").write_text(families.prompt_rows(20))
    spec = DataSpec(
        source="rows.jsonl", format="prompt_completion", train=8, validation=2, test=6,
        max_length=40,
    )  # fmt: skip
    rows = prepare(spec, base.tokenizer, root=folder, task=base.task).test.rows
    return base, read(str(folder)), rows


def by_loops(base, rows, *, first=0):
    """The same from what transformers returns, row by row; which keys are seen is written out."""
    model = copy.deepcopy(base.model).eval()
    model.set_attn_implementation("eager")
    found = {}
    for row in rows:
        inputs = base.collator([row])
        del inputs["labels"]
        with torch.no_grad():
            output = model(**inputs, output_attentions=True)
        if base.task == "seq2seq":
            stacks = {"encoder": output.encoder_attentions, "decoder": output.decoder_attentions}
        else:
            stacks = {"encoder" if base.task == "masked" else "decoder": output.attentions}
        for stack, layers in stacks.items():
            for index, weights in enumerate(layers):
                for head in weights[0].double().numpy():
                    for query, shares in enumerate(head):
                        num_seen = len(shares) if stack == "encoder" else query + 1
                        shares = shares[first:num_seen]
                        if len(shares) >= 2:
                            shares = shares / shares.sum()
                            entropy = -(shares * np.log(shares)).sum() / math.log(len(shares))
                            found.setdefault(Layer(stack, index), []).append(entropy)
    return {layer: float(np.mean(each)) for layer, each in found.items()}


def test_entropies_of_one_head_by_hand():
    weights = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]])
    third = (0.5 * math.log(4) + 0.5 * math.log(2)) / math.log(3)
    torch.testing.assert_close(normalised_entropies(weights, 3), torch.tensor([1.0, third]))
    torch.testing.assert_close(normalised_entropies(weights, 2), torch.tensor([1.0]))
    left = (math.log(3) / 3 + 2 / 3 * math.log(3 / 2)) / math.log(2)
    torch.testing.assert_close(
        normalised_entropies(weights, 3, without_first_token=True), torch.tensor([left])
    )


def test_a_key_is_seen_if_some_head_gives_it_weight():
    weights = torch.tensor([[[1.0, 0.0, 0.0]] * 3, [[0.5, 0.5, 0.0]] * 3])
    torch.testing.assert_close(
        normalised_entropies(weights, 3), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    )
    # Of the first head nothing is left without the first key, and one other key is no choice.
    assert normalised_entropies(weights, 3, without_first_token=True).numel() == 0


@pytest.mark.parametrize("without_first_token", [False, True])
def test_entropies_of_models_are_those_of_their_attention(case, without_first_token):
    base, anatomy, rows = case
    found = attention_entropies(base, rows, anatomy, without_first_token=without_first_token)
    expected = by_loops(base, rows, first=int(without_first_token))
    assert found == pytest.approx(expected, abs=CLOSE)
    assert len(found) == sum(anatomy.stacks.values())
    assert all(0 <= entropy <= 1 for entropy in found.values())


def test_padding_changes_nothing(case):
    base, anatomy, rows = case
    assert len({row.num_read for row in rows}) > 1
    alone = attention_entropies(base, rows, anatomy, batch=1)
    assert attention_entropies(base, rows, anatomy, batch=6) == pytest.approx(alone, abs=CLOSE)


def test_the_base_is_given_back_as_it_was(case):
    base, anatomy, rows = case
    attention = base.model.config._attn_implementation
    assert attention != "eager"
    hooks = [len(module._forward_hooks) for module in base.model.modules()]
    base.model.train()
    attention_entropies(base, rows[:1], anatomy)
    with pytest.raises(DataError):
        attention_entropies(base, [cut(rows[0], 1)], anatomy)
    assert base.model.training
    base.model.eval()
    assert base.model.config._attn_implementation == attention
    assert [len(module._forward_hooks) for module in base.model.modules()] == hooks


def cut(row: TokenizedRow, length: int) -> TokenizedRow:
    short = {
        "ids": frozen_ids(row.ids[:length]),
        "scored": frozen_marks(row.scored[:length]),
        "masked": None,
        "source": None if row.source is None else frozen_ids(row.source[:length]),
    }
    return replace(row, **short)


def test_rows_without_two_keys_are_refused(base, anatomy, prepared):
    row = prepared.test.rows[0]
    with pytest.raises(DataError, match="there are no rows to read"):
        attention_entropies(base, [], anatomy)
    with pytest.raises(DataError, match="the rows are too short: no token attends to two others"):
        attention_entropies(base, [cut(row, 1)], anatomy)
    found = attention_entropies(base, [cut(row, 2)], anatomy)
    assert set(found) == {Layer("decoder", index) for index in range(3)}
    with pytest.raises(DataError, match="too short"):
        attention_entropies(base, [cut(row, 2)], anatomy, without_first_token=True)


def test_an_attention_that_hides_its_weights_is_refused(base, anatomy, prepared, monkeypatch):
    attention = type(base.model.transformer.h[0].attn)
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *a, **k: (forward(*a, **k)[0], None))
    with pytest.raises(
        ModelError, match=r"transformer\.h\.0\.attn of .* does not show the weights"
    ):
        attention_entropies(base, prepared.test.rows[:1], anatomy)
    assert base.model.config._attn_implementation != "eager"


def test_the_prior_tilts_q_and_k_alone():
    sites = anatomies.llama(layers=2).sites
    entropies = {Layer("decoder", 0): 0.9, Layer("decoder", 1): 0.5}
    found = priors(entropies, sites, 0.5)
    assert found == pytest.approx(
        {
            "model.layers.0.self_attn.q_proj": 1.1,
            "model.layers.0.self_attn.k_proj": 1.1,
            "model.layers.1.self_attn.q_proj": 0.9,
            "model.layers.1.self_attn.k_proj": 0.9,
        }
    )
    reversed_found = priors(entropies, sites, -0.5)
    assert reversed_found["model.layers.0.self_attn.q_proj"] == pytest.approx(0.9)
    assert set(priors(dict.fromkeys(entropies, 0.3), sites, 0.5).values()) == {1.0}
    extreme = {Layer("decoder", 0): 1.0, Layer("decoder", 1): 0.0}
    assert all(0.5 <= each <= 1.5 for each in priors(extreme, sites, 0.5).values())
    assert priors(entropies, anatomies.gpt2(layers=2).sites, 0.5) == {}


def test_the_prior_moves_rank():
    spec = PolicySpec.read({"policy": "attention_entropy"})
    begun = initial_placement(spec, placement("attention"), 300, LoraSpec(rank=4, alpha=4))
    favoured = [path for path in begun.by_path if path.endswith(("q_proj", "k_proj"))]

    def ranks(prior):
        policy = build(
            spec, placement=begun, target_parameters=300, total_steps=60,
            priors=dict.fromkeys(favoured, prior),
        )  # fmt: skip
        assert policy.name == "attention_entropy"
        trial = StandIn(begun)
        assert list(trial.train(policy, 60))
        return sum(trial.ranks[path] for path in favoured)

    assert ranks(1.5) > ranks(0.5)


def test_it_says_that_it_is_experimental():
    spec = PolicySpec.read({"policy": "attention_entropy"})
    assert "experimental" in spec.title
    assert "no study shows" in spec.notes[0]
    assert spec.num_rows == 32


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        (
            place(anatomies.gpt2(layers=2), "all"),
            "policy attention_entropy: gpt2 has no site that makes queries or keys alone",
        ),
        (
            placement("feed_forward | attention.v"),
            "policy attention_entropy: the rule selects no site that makes queries or keys; "
            "widen it by attention.q",
        ),
    ],
)
def test_without_q_and_k_it_is_refused(placed, message):
    spec = PolicySpec.read({"policy": "attention_entropy"})
    with pytest.raises(PlacementError) as error:
        initial_placement(spec, placed, placed.trainable_parameters, LoraSpec())
    assert str(error.value) == message
