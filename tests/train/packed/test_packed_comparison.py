"""Bases on which the packed engine would be silently wrong are found out before anything runs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from packed_cases import CPU, Case, Trial

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.placement.instance import model_of
from loratlas.train.base import Base
from loratlas.train.dropout import set_dropout
from loratlas.train.packed.batch import Flat, Whole
from loratlas.train.packed.opening import open_base
from loratlas.train.trial import ModelRef

VOCABULARY, MASK = 100, 5
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT_LIKE = {
    **COMMON, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def rows_for(task):
    """Rows of 6 to 20 tokens; the second half of a causal row is predicted."""
    chance = np.random.default_rng(0)

    def ids(length):
        return frozen_ids(chance.integers(6, VOCABULARY, length).tolist())

    rows = []
    for number, length in enumerate((20, 6, 13, 9, 17, 8, 11)):
        begin = length // 2 if task == "causal" else 0
        rows.append(
            TokenizedRow(
                row=number, ids=ids(length), num_bytes=length,
                scored=frozen_marks([place >= begin for place in range(length)]),
                source=ids(length // 2 + 3) if task == "seq2seq" else None,
            )
        )  # fmt: skip
    return tuple(rows)


def case_of_class(name, config, task):
    set_dropout(config, 0.0)
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval().requires_grad_(False)
    model.config.use_cache = False
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=2)
    base = Base(
        ref=ModelRef(name=name), model=model, tokenizer=tokenizer, device=CPU, digest=name,
        num_parameters=0, task=task,
    )  # fmt: skip
    masking = Masking(share=0.3, mask_id=MASK, vocabulary=VOCABULARY) if task == "masked" else None
    rows = rows_for(task)
    anatomy = model_of(model).anatomy
    return Case(base=base, anatomy=anatomy, rows=rows, test=(), masking=masking)


def opened(case):
    return open_base(case.base, case.anatomy, case.rows, case.masking)


TRIALS = [
    Trial(rule="attention", seed=0),
    Trial(rule="attention.q + attention.v", seed=1, rank=2),
]


def require_equal_to_the_reference(case, base):
    for found, trial in zip(case.packed(TRIALS, base=base), TRIALS, strict=True):
        wanted = case.by_reference(trial)
        assert found.distance(wanted) <= 1e-5
        assert found.loss_distance(wanted) <= 1e-5


def test_one_block_that_is_run_several_times_is_not_entered():
    """ALBERT's layers share their weights: what stands before "the" block is several things."""
    config = transformers.AlbertConfig(**BERT_LIKE, embedding_size=16)
    case = case_of_class("AlbertForMaskedLM", config, "masked")
    base = opened(case)
    assert isinstance(base.layout, Flat)
    assert base.backbone.num_blocks == 0
    require_equal_to_the_reference(case, base)


def test_what_looks_at_all_masks_of_a_batch_is_not_run_flat():
    """ESM scales embeddings by the share of masks: to be seen in masked rows only."""
    config = transformers.EsmConfig(
        **BERT_LIKE, mask_token_id=MASK, token_dropout=True, position_embedding_type="rotary"
    )
    case = case_of_class("EsmForMaskedLM", config, "masked")
    base = opened(case)
    assert isinstance(base.layout, Whole)
    require_equal_to_the_reference(case, base)


def test_a_model_that_calls_its_decoder_past_its_backbone_is_still_run_by_block():
    config = transformers.OPTConfig(
        **COMMON, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=16,
    )  # fmt: skip
    case = case_of_class("OPTForCausalLM", config, "causal")
    base = opened(case)
    assert isinstance(base.layout, Flat)
    assert base.backbone.num_blocks == 3
    require_equal_to_the_reference(case, base)


def test_attention_that_cannot_be_exchanged_takes_rows_filled_up():
    config = transformers.GPTJConfig(
        **COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4
    )
    base = opened(case_of_class("GPTJForCausalLM", config, "causal"))
    assert isinstance(base.layout, Whole)


def test_a_state_that_goes_from_row_to_row_is_seen():
    config = transformers.RwkvConfig(
        **COMMON, hidden_size=32, num_hidden_layers=2, context_length=64, attention_hidden_size=32
    )
    base = opened(case_of_class("RwkvForCausalLM", config, "causal"))
    assert isinstance(base.layout, Whole)


SILENTLY_WRONG = {
    "tokens stand before rows": (
        "LongformerForMaskedLM",
        lambda: transformers.LongformerConfig(**BERT_LIKE, attention_window=4),
        "masked",
        "one trial's adapters change another's logits by ",
    ),
    "a map is used on what are no rows": (
        "DebertaV2ForMaskedLM",
        lambda: transformers.DebertaV2Config(
            **BERT_LIKE, relative_attention=True, pos_att_type=["c2p", "p2c"],
            max_relative_positions=48, share_att_key=True,
        ),
        "masked",
        "one trial's adapters change another's logits by ",
    ),
    "its loss has a part of its router": (
        "MixtralForCausalLM",
        lambda: transformers.MixtralConfig(
            **BERT_LIKE, num_key_value_heads=2, num_local_experts=4, output_router_logits=True
        ),
        "causal",
        "its loss is not that of its predictions alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SILENTLY_WRONG)
def test_what_would_be_silently_wrong_goes_to_the_reference_engine(what):
    name, config, task, reason = SILENTLY_WRONG[what]
    found = opened(case_of_class(name, config(), task))
    assert isinstance(found, str)
    assert found.startswith(f"its forward pass cannot be taken apart: {reason}")


def gpt2_config():
    return transformers.GPT2Config(
        **COMMON, n_embd=32, n_layer=3, n_head=4, n_positions=64, attn_pdrop=0.0,
        embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip


def changed(case, change):
    """The tiny GPT-2 with something done to its output."""
    forward = case.base.model.forward

    def other(*args, **kwargs):
        output = forward(*args, **kwargs)
        change(case.base.model, output)
        return output

    case.base.model.__dict__["forward"] = other
    return case


def noisy(model, output):
    if model.training:
        output.logits += 0.1 * torch.rand_like(output.logits)


def of_all_rows(model, output):
    output.logits = output.logits - output.logits.mean(dim=(0, 1))


def no_number(model, output):
    output.logits = output.logits * float("nan")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (noisy, "its loss is not that of its predictions alone"),
        (of_all_rows, "its loss is not that of its predictions alone"),
        (no_number, "its loss is not that of its predictions alone"),
    ],
)
def test_a_forward_pass_that_does_something_else_too_is_told_apart(change, reason):
    case = changed(case_of_class("GPT2LMHeadModel", gpt2_config(), "causal"), change)
    assert opened(case) == f"its forward pass cannot be taken apart: {reason}"


def of_its_rows(model, args, output):
    return output - output.mean(dim=1, keepdim=True)


def noise(model, args, output):
    return output + 0.1 * torch.rand_like(output) if model.training else output


@pytest.mark.parametrize("hook", [of_its_rows, noise])
def test_also_where_it_is_done_within(hook):
    case = case_of_class("GPT2LMHeadModel", gpt2_config(), "causal")
    case.base.model.transformer.h[1].mlp.register_forward_hook(hook)
    found = opened(case)
    assert isinstance(found, str)
    assert found.startswith("its forward pass cannot be taken apart: its logits differ by ")


def of_the_token_before(model, args, output):
    """A convolution over two tokens, as state space models have it."""
    return output + 1e-3 * torch.nn.functional.pad(output[:, :-1], (0, 0, 1, 0))


def test_what_reaches_into_the_beginning_of_a_row_is_seen_there():
    """The predictions of these rows stand at their end, where next to nothing of it arrives."""
    case = case_of_class("GPT2LMHeadModel", gpt2_config(), "causal")
    rows = [
        replace(
            row, scored=frozen_marks(place == len(row.ids) - 1 for place in range(len(row.ids)))
        )
        for row in case.rows
        if len(row.ids) > 10
    ]
    case = replace(case, rows=tuple(rows))
    assert isinstance(opened(case).layout, Flat)
    case.base.model.transformer.h[2].mlp.register_forward_hook(of_the_token_before)
    assert isinstance(opened(case).layout, Whole)


def test_the_model_without_any_of_it_is_opened():
    base = opened(case_of_class("GPT2LMHeadModel", gpt2_config(), "causal"))
    assert isinstance(base.layout, Flat)
    assert base.backbone.num_blocks == 3


def test_in_which_mode_the_model_is_left():
    case = case_of_class("GPT2LMHeadModel", gpt2_config(), "causal")
    opened(case)
    assert not any(module.training for module in case.base.model.modules())
    case.base.model.train()
    opened(case)
    assert all(module.training for module in case.base.model.modules())


def test_a_window_that_only_some_rows_exceed_is_met_by_the_longest():
    config = transformers.MistralConfig(
        **BERT_LIKE, num_key_value_heads=2, head_dim=8, sliding_window=15
    )
    case = case_of_class("MistralForCausalLM", config, "causal")
    assert isinstance(opened(case).layout, Whole)
    short = replace(case, rows=tuple(row for row in case.rows if len(row.ids) <= 15))
    assert isinstance(opened(short).layout, Flat)
