"""Planned peak memory against the allocations that PyTorch's profiler sees.

The tolerance is a tenth of the peak, and of what a step adds to weights and averages: what plans
promise. Most figures agree to a thousandth.
"""

import dataclasses

import pytest

from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Workload
from loratlas.placement.match import match_parameters
from loratlas.placement.placement import LoraSpec, place

QUICK = ["gpt2", "llama", "qwen3", "bert", "t5", "mixtral", "gemma3_text", "phi3", "gpt_neox"]
ALL = [
    *QUICK, "bart", "distilbert", "electra", "gemma", "gemma2", "granite", "mbart", "mistral",
    "olmo2", "olmoe", "opt", "phi", "qwen2", "qwen2_moe", "qwen3_moe", "roberta", "smollm3",
    "stablelm", "starcoder2", "xlm-roberta",
]  # fmt: skip
ROUTED = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"]
TOLERANCE = 0.1


def check(memory, small, name, rules, setting="plain", **changes):
    """Hold the modelled peaks of a family against the measured ones."""
    for rule in rules:
        case = memory.case_of(name, small(name), rule, setting)
        case = dataclasses.replace(case, **changes)
        row = memory.measure(case, name, rule, setting, "cpu")
        assert row is not None, (name, rule)
        assert abs(row.error) < TOLERANCE, (rule, row.error)
        assert abs(row.step_error) < TOLERANCE, (rule, row.step_error)


def peak(case, **changes):
    case = dataclasses.replace(case, **changes)
    return Estimator(case.anatomy, case.setting()).cost(case.placement).memory.peak


def test_every_family_of_the_benchmark_is_tested(memory):
    assert sorted(ALL) == sorted(memory.MODELS)


@pytest.mark.parametrize("name", QUICK)
def test_against_the_profiler(memory, small, name):
    check(memory, small, name, ["all"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_placement_against_the_profiler(memory, small, name):
    routed = ("expert", "router")
    dense = [rule for rule in memory.RULES if not any(word in rule for word in routed)]
    check(memory, small, name, memory.RULES if name in ROUTED else dense)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("setting", ["eager attention", "bf16 base", "4 micro-batches"])
def test_every_family_in_every_setting(memory, small, name, setting):
    check(memory, small, name, ["all", "attention"], setting)


@pytest.mark.parametrize("rule", ["all", "feed_forward", "all @ last(2)", "all | router"])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_experts(memory, small, rule, experts):
    check(memory, small, "mixtral", [rule], experts=experts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_every_placement_on_experts(memory, small, name, experts):
    rules = ["attention", "feed_forward @ last(1)", "expert.down", "expert.gate_up", "router"]
    check(memory, small, name, rules, experts=experts)


def test_dropout_is_remembered(memory, small):
    for name in ("gpt2", "llama", "distilbert"):
        check(memory, small, name, ["attention"], lora_dropout=0.1, base_dropout=0.1)


def test_a_base_of_half_width(memory, small):
    check(memory, small, "llama", ["all", "feed_forward.down @ last(1)"], "bf16 base")


@pytest.mark.parametrize("passes", [2, 4])
def test_micro_batches_run_one_after_another(memory, small, passes):
    """Later ones find the gradients of the first; their number changes nothing."""
    workload = Workload.alike(2, 96, passes=passes, padded=True)
    check(memory, small, "llama", ["all", "attention @ last(1)"], workload=workload)
    case = memory.case_of("llama", small("llama"), "all", "plain")
    gradients = 4 * case.placement.trainable_parameters
    assert peak(case, workload=workload) == peak(case) + gradients


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_checkpointing(memory, small, name, input_gradients):
    changes = {"checkpointing": True, "input_gradients": input_gradients}
    check(memory, small, name, ["all", "attention @ last(2)"], **changes)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["checkpointed", "checkpointed, input gradients"])
@pytest.mark.parametrize("name", [name for name in ALL if name not in ("t5", "bart", "mbart")])
def test_every_family_under_checkpointing(memory, small, name, setting):
    check(memory, small, name, ["all", "attention"], setting)


def test_checkpointing_saves_memory_and_costs_operations(memory, small):
    case = memory.case_of("llama", small("llama"), "all", "plain")
    assert peak(case, checkpointing=True) < 0.5 * peak(case)
    plain, again = (
        Estimator(
            case.anatomy, dataclasses.replace(case, checkpointing=checkpointing).setting()
        ).cost(case.placement)
        for checkpointing in (False, True)
    )
    assert again.flops.forward == plain.flops.forward
    assert again.flops.backward > plain.flops.backward


def test_input_gradients_draw_the_frozen_blocks_in(memory, small):
    case = memory.case_of("llama", small("llama"), "all @ last(1)", "plain")
    assert peak(case, input_gradients=True) > 1.5 * peak(case)


def pair(memory, small, kind):
    """Return two placements of equal parameters."""
    anatomy = small("llama")
    if kind == "blocks":
        return place(anatomy, "all", rank=4), place(anatomy, "all @ layers(50%..)", rank=8)
    target = place(anatomy, "feed_forward", rank=8).trainable_parameters
    attention = match_parameters("attention", anatomy, target, lora=LoraSpec())
    return attention.placement, place(anatomy, "feed_forward", rank=8)


@pytest.mark.parametrize("kind", ["blocks", "parts"])
def test_equal_parameters_are_not_equal_memory(planner, memory, small, kind):
    """The plan's difference has the sign and the size of the measured one."""
    placements = pair(memory, small, kind)
    counts = [placement.trainable_parameters for placement in placements]
    assert abs(counts[0] - counts[1]) <= 0.02 * counts[1]
    case = memory.case_of("llama", small("llama"), "all", "plain")
    cases = [dataclasses.replace(case, placement=placement) for placement in placements]
    planned = peak(cases[0]) - peak(cases[1])
    measured = planner.measured_memory(cases[0]) - planner.measured_memory(cases[1])
    assert abs(measured) > 0.01 * peak(cases[0])
    assert planned == pytest.approx(measured, rel=TOLERANCE)


def unknown(memory, small, name, rule="all", **changes):
    case = dataclasses.replace(memory.case_of(name, small(name), rule, "plain"), **changes)
    cost = Estimator(case.anatomy, case.setting()).cost(case.placement)
    assert cost.flops is not None
    assert cost.memory is None
    return cost.unknown


def test_models_that_are_not_described_have_no_figure(planner):
    config = {
        "model_type": "gptj", "architectures": ["GPTJForCausalLM"], "n_embd": 32, "n_layer": 2,
        "n_head": 4, "rotary_dim": 4, "vocab_size": 64,
    }  # fmt: skip
    anatomy = planner.read_config(config)
    case = planner.Case(
        anatomy=anatomy,
        config=config,
        placement=place(anatomy, "attention"),
        workload=Workload.alike(1, 8),
    )
    cost = Estimator(anatomy, case.setting()).cost(case.placement)
    assert (cost.flops is None, cost.memory) == (False, None)
    assert cost.unknown == (
        "the peak memory of gptj models is not modelled: "
        "what their blocks hold between the maps is not described"
    )


def test_checkpointed_stacks_have_no_figure(memory, small):
    assert unknown(memory, small, "t5", checkpointing=True) == (
        "the peak memory of encoder-decoder models under checkpointing is not modelled"
    )


def test_rows_beyond_the_window_have_no_figure(memory, small):
    config = {**memory.MODELS["mistral"], "sliding_window": 64}
    assert unknown(memory, small, "mistral", config=config) == (
        "the peak memory of mistral models on rows beyond attention's window of 64 tokens "
        "is not modelled"
    )


def test_a_gpu_has_no_figure(memory, small):
    case = memory.case_of("llama", small("llama"), "all", "plain")
    estimator = Estimator(case.anatomy, case.setting(on_cpu=False))
    cost = estimator.cost(case.placement)
    assert cost.memory is None
    assert cost.unknown == "peak memory on a GPU: the account has been held against CPUs only"
    assert estimator.memory_as_modelled(case.placement).weights == 4 * case.anatomy.num_parameters


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "bert", "t5", "mixtral", "qwen2_moe"])
def test_parameters_are_pefts(planner, memory, small, name):
    case = memory.case_of(name, small(name), "all", "plain")
    trainable, total = planner.build(case).get_nb_trainable_parameters()
    cost = Estimator(case.anatomy, case.setting()).cost(case.placement)
    assert cost.trainable_parameters == trainable
    assert case.anatomy.num_parameters + trainable == total
    assert cost.adapter_bytes == 4 * trainable
    assert cost.optimiser_bytes == 8 * trainable
