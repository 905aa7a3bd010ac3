"""What can be packed, what is said of the rest, and that a base comes back as it was lent."""

import shutil
from dataclasses import replace

import pytest
import torch
from packed_cases import CPU, Case, Trial, case_of
from transformers.pytorch_utils import Conv1D

import families
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.placement.placement import place
from loratlas.train.base import load_base
from loratlas.train.packed.batch import Flat, Whole
from loratlas.train.packed.opening import open_base, why_not
from loratlas.train.trial import ModelRef


def opened(case: Case):
    return open_base(case.base, case.anatomy, case.rows, case.masking)


def snapshot(model):
    """Everything about a model that a pack might leave behind."""
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "attention": model.config._attn_implementation,
        "forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "hooks": sum(len(module._forward_hooks) for module in model.modules()),
        "training": [module.training for module in model.modules()],
        "gradients": [p.grad is None and not p.requires_grad for p in model.parameters()],
        "cache": model.config.use_cache,
    }


def require_same(before, after):
    weights, others = before.pop("weights"), after.pop("weights")
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert before == after


def test_a_classification_head_is_trained_whole(tmp_path):
    families.write("gpt2", tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"text": "house {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(30))
    )
    data = DataSpec(
        source="rows.jsonl", format="classification", train=12, validation=4, test=4, max_length=32
    )
    ref = ModelRef(name=str(tmp_path), num_labels=2)
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=CPU)
    rows = prepare(data, base.tokenizer, root=tmp_path, task=base.task).train.rows
    assert open_base(base, None, rows) == "its classification head is trained whole"


def test_active_dropout_of_the_base(gpt2):
    ref = gpt2.base.ref
    base = load_base(ref, dtype="fp32", base_dropout=None, device=CPU)
    found = opened(replace(gpt2, base=base))
    assert found.startswith("the base's own dropout is active (")
    base = load_base(ref, dtype="fp32", base_dropout=0.1, device=CPU)
    assert opened(replace(gpt2, base=base)).startswith("the base's own dropout is active (")


def test_a_router_that_draws_noise(mixtral):
    config = mixtral.base.model.config
    before = config.router_jitter_noise
    config.router_jitter_noise = 0.1
    try:
        assert opened(mixtral) == "its router draws noise"
    finally:
        config.router_jitter_noise = before
    assert isinstance(opened(mixtral).layout, Flat)


def test_experts_routers_and_embeddings_are_apart(mixtral):
    for rule, path in (
        ("expert", "model.layers.0.mlp.experts.gate_up_proj"),
        ("router", "model.layers.0.mlp.gate"),
        ("embedding", "model.embed_tokens"),
        ("all", "model.layers.0.mlp.experts.gate_up_proj"),
    ):
        placement = place(mixtral.anatomy, rule, rank=2, alpha=4)
        reason = why_not(mixtral.base, placement)
        assert reason is not None, rule
        assert reason.endswith(" is no plain linear map")
        first = reason.removesuffix(" is no plain linear map")
        assert first == path or first.startswith(path.rsplit(".", 1)[0])
    assert why_not(mixtral.base, place(mixtral.anatomy, "attention", rank=2, alpha=4)) is None


class Quantised(torch.nn.Linear):
    """What bitsandbytes and others derive from a plain map."""


class Shared(Conv1D):
    """The same for GPT-2's maps."""


@pytest.mark.parametrize("kind", [Quantised, Shared])
def test_classes_derived_from_a_plain_map_do_something_else(gpt2, llama, kind):
    case, path = {
        Quantised: (llama, "model.layers.1.mlp.up_proj"),
        Shared: (gpt2, "transformer.h.1.mlp.c_fc"),
    }[kind]
    module = case.base.model.get_submodule(path)
    plain = place(case.anatomy, "feed_forward", rank=2, alpha=4)
    assert why_not(case.base, plain) is None
    before = type(module)
    module.__class__ = kind
    try:
        assert why_not(case.base, plain) == f"{path} is no plain linear map"
        below = place(case.anatomy, "feed_forward @ layers(0)", rank=2, alpha=4)
        assert why_not(case.base, below) is None
    finally:
        module.__class__ = before


def test_an_adapter_that_nothing_passes_through_fails_by_itself(gpt2):
    """In a pack it would take the others down with it."""
    placement = place(gpt2.anatomy, "attention.o @ layers(1)", rank=2, alpha=4)
    (adapter,) = placement.adapters
    reason = "the branch is off: tokens do not pass through it"
    idle = replace(adapter, site=replace(adapter.site, reason=reason))
    assert why_not(gpt2.base, placement) is None
    assert (
        why_not(gpt2.base, replace(placement, adapters=(idle,)))
        == "tokens pass through none of its sites"
    )
    other = place(gpt2.anatomy, "attention.o @ layers(0)", rank=2, alpha=4).adapters
    assert why_not(gpt2.base, replace(placement, adapters=(idle, *other))) is None


def refuse(*args, **kwargs):
    raise KeyError("no such thing\nand a second line")


def test_a_forward_pass_that_knows_nothing_of_this_gives_a_sentence(tmp_path):
    case = case_of("gpt2", tmp_path)
    case.base.model.transformer.h[1].attn.__dict__["forward"] = refuse
    before = snapshot(case.base.model)
    assert opened(case) == (
        "its forward pass cannot be taken apart: KeyError: 'no such thing\\nand a second line'"
    )
    require_same(before, snapshot(case.base.model))


def test_one_that_refuses_positions_alone_is_run_on_rows_filled_up(tmp_path):
    case = case_of("gpt2", tmp_path)
    forward = case.base.model.transformer.forward

    def without_positions(*args, position_ids=None, **kwargs):
        if position_ids is not None:
            raise TypeError("unexpected keyword argument 'position_ids'")
        return forward(*args, **kwargs)

    case.base.model.transformer.__dict__["forward"] = without_positions
    base = opened(case)
    assert isinstance(base.layout, Whole)
    trial = Trial(rule="all @ layers(1..)")
    (found,) = case.packed([trial], base=base)
    assert found.distance(case.by_reference(trial)) <= 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta", "mixtral", "t5"])
def test_opening_leaves_the_base_as_it_was(request, family):
    case = request.getfixturevalue(family)
    before = snapshot(case.base.model)
    base = opened(case)
    require_same(dict(before), snapshot(case.base.model))
    slots = case.slots([Trial(rule="attention"), Trial(rule="head")])
    with base.opened(slots, case.prefix()):
        if family != "t5":
            assert case.base.model.config._attn_implementation == "loratlas_rows"
        assert snapshot(case.base.model)["forwards"]
    require_same(before, snapshot(case.base.model))


def test_also_after_an_error_inside_a_pack(gpt2):
    before = snapshot(gpt2.base.model)

    def failing():
        with gpt2.flat().opened(gpt2.slots([Trial(rule="all")]), gpt2.prefix()) as flow:
            flow.begin_step(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    require_same(before, snapshot(gpt2.base.model))


def test_another_attention_than_sdpa_comes_back_too(tmp_path):
    case = case_of("gpt2", tmp_path)
    case.base.model.set_attn_implementation("eager")
    before = snapshot(case.base.model)
    assert isinstance(opened(case).layout, Flat)
    require_same(before, snapshot(case.base.model))
    assert case.base.model.config._attn_implementation == "eager"


def test_a_single_row_is_enough_to_try(gpt2):
    assert isinstance(opened(replace(gpt2, rows=gpt2.rows[:1])).layout, Flat)


def test_a_base_in_bf16_is_opened(gpt2):
    base = load_base(gpt2.base.ref, dtype="bf16", base_dropout=0.0, device=CPU)
    case = replace(gpt2, base=base)
    found = opened(case)
    assert isinstance(found.layout, Flat)
    trials = [Trial(rule="all", rate=1e-3), Trial(rule="attention @ layers(2)", rate=1e-3)]
    wanted = gpt2.packed(trials)
    for trained, other in zip(case.packed(trials, base=found), wanted, strict=True):
        # bf16 has 8 bits; adapters and optimiser are fp32 in both
        assert trained.loss_distance(other) < 0.05
        assert all(a.dtype == b.dtype == torch.float32 for a, b in trained.adapters.values())


def test_the_model_on_disk_is_not_needed_any_more(tmp_path):
    case = case_of("gpt2", tmp_path)
    base = opened(case)
    shutil.rmtree(tmp_path)
    (found,) = case.packed([Trial(rule="attention")], base=base)
    assert len(found.losses) == 6
