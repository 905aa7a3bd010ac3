"""Planned operations against PyTorch's own count, and against the closed form for GPT-2."""

import pytest

import anatomies
from loratlas.cost.blueprint import Blueprint, read_blueprint
from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Setting, Workload
from loratlas.placement.placement import place

FAMILIES = ["gpt2", "llama", "qwen3", "bert", "t5", "mixtral", "qwen2_moe", "electra"]
QUICK = ["all", "attention.o @ layers(1)", "attention.q | attention.qkv"]


def gpt2_flops(rule, *, tokens=84, rank=16):
    setting = Setting(blueprint=Blueprint(num_heads=16), workload=Workload.alike(1, tokens))
    anatomy = anatomies.gpt2()
    return Estimator(anatomy, setting).cost(place(anatomy, rule, rank=rank)).flops


# Gigaflops forward and backward, measured on GPT-2-medium with FlopCounterMode at 84 tokens.
@pytest.mark.parametrize(
    ("blocks", "forward", "backward"),
    [(1, 60.1, 10.4), (3, 60.2, 14.9), (6, 60.3, 21.7), (12, 60.6, 35.2), (24, 61.1, 62.4)],
)
def test_the_last_blocks_of_gpt2_medium(blocks, forward, backward):
    found = gpt2_flops(f"all @ last({blocks})")
    assert round(found.forward / 1e9, 1) == forward
    assert round(found.backward / 1e9, 1) == backward


@pytest.mark.parametrize(
    ("rule", "downstream", "attends"),
    [("all", 9, 1), ("attention.o", 8, 0), ("feed_forward.up", 4, 0), ("feed_forward.down", 0, 0)],
)
def test_the_closed_form(rule, downstream, attends):
    """`downstream` is P' in units of d^2; `attends` is A'."""
    d, layers, vocabulary, tokens, rank = 1024, 24, 50257, 84, 16
    adapted = [a.site for a in place(anatomies.gpt2(), rule).adapters]
    features = sum(site.d_in + site.d_out for site in adapted)
    blocks = 12 * d * d
    behind = downstream * d * d
    forward = (
        2 * tokens * (layers * blocks + vocabulary * d)
        + 4 * layers * tokens**2 * d
        + 2 * tokens * rank * features
    )
    backward = (
        2 * tokens * (vocabulary * d + (layers - 1) * blocks + behind)
        + 8 * (layers - 1 + attends) * tokens**2 * d
        + 4 * tokens * rank * features
        - 2 * tokens * rank * adapted[0].d_in
    )
    found = gpt2_flops(rule)
    assert found.forward == pytest.approx(forward, rel=1e-12)
    assert found.backward == pytest.approx(backward, rel=1e-12)


def check(planner, memory, small, name, rules, **changes):
    anatomy = small(name)
    for rule in rules:
        case = planner.Case(
            anatomy=anatomy,
            config=memory.MODELS[name],
            placement=place(anatomy, rule, rank=4, alpha=8),
            workload=Workload.alike(2, 20, decoder_tokens=12 if name == "t5" else None),
            **changes,
        )
        planned = Estimator(anatomy, case.setting()).cost(case.placement).flops
        forward, backward = planner.counted_flops(case)
        assert planned.forward == pytest.approx(forward, rel=1e-9), rule
        assert planned.backward == pytest.approx(backward, rel=1e-9), rule


@pytest.mark.parametrize("name", FAMILIES)
def test_against_pytorchs_count(planner, memory, small, name):
    check(planner, memory, small, name, QUICK)


@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_checkpointed_blocks_run_again_up_to_what_they_keep(
    planner, memory, small, name, input_gradients
):
    changes = {"checkpointing": True, "input_gradients": input_gradients}
    check(planner, memory, small, name, ["all", "attention.o @ layers(1)"], **changes)


def test_shared_experts_are_reached_as_parameters(planner, memory, small):
    """PEFT then adds B A to the weights, which costs by weights and not by tokens."""
    check(planner, memory, small, "qwen2_moe", ["shared_expert", "shared_expert.down @ last(1)"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_placement_against_pytorchs_count(planner, memory, small, name):
    rules = [rule for rule in planner.RULES if rule not in QUICK]
    check(planner, memory, small, name, [r for r in rules if (name, r) != ("t5", "embedding")])


def test_lengths_of_rows_enter_as_they_are():
    """Two batches of unlike rows: what a step costs on average is their mean."""
    anatomy = anatomies.gpt2(width=32, layers=2, vocabulary=64)
    placement = place(anatomy, "all", rank=2)

    def flops(workload):
        setting = Setting(blueprint=Blueprint(num_heads=4), workload=workload)
        return Estimator(anatomy, setting).cost(placement).flops.total

    mixed = Workload.of_rows([5, 9, 3], batch=2, accumulation=1)
    apart = (flops(Workload.alike(2, 9)) + flops(Workload.alike(1, 3))) / 2
    assert flops(mixed) == pytest.approx(apart, rel=1e-12)
    together = Workload.of_rows([5, 9, 3], batch=2, accumulation=2)
    assert flops(together) == pytest.approx(2 * apart, rel=1e-12)


def test_side_by_side_blocks_stop_earlier():
    """With attention beside the feed-forward, an adapter in one lets the other's gradient be."""
    anatomy = anatomies.gpt2(width=32, layers=1, vocabulary=64)
    placement = place(anatomy, "attention.o", rank=2)
    workload = Workload.alike(1, 8)
    after, beside = (
        Estimator(
            anatomy,
            Setting(blueprint=Blueprint(num_heads=4, order=order), workload=workload),
        )
        .cost(placement)
        .flops
        for order in ("pre", "parallel")
    )
    assert after.forward == beside.forward
    assert after.backward - beside.backward == 2 * 8 * 8 * 32 * 32


def test_what_is_not_known_is_not_guessed():
    anatomy = anatomies.mixtral()
    setting = Setting(blueprint=Blueprint(num_heads=2), workload=Workload.alike(1, 8))
    cost = Estimator(anatomy, setting).cost(place(anatomy, "attention"))
    assert cost.flops is None
    assert cost.memory is None
    assert cost.trainable_parameters == place(anatomy, "attention").trainable_parameters
    assert cost.unknown == (
        "the forward pass of mixtral is not known: how many experts a token visits"
    )


def test_blocks_that_share_their_maps_are_not_counted(planner):
    config = {
        "model_type": "albert", "architectures": ["AlbertForMaskedLM"], "hidden_size": 32,
        "embedding_size": 16, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "vocab_size": 64,
    }  # fmt: skip
    anatomy = planner.read_config(config)
    setting = Setting(blueprint=read_blueprint(config), workload=Workload.alike(1, 8))
    cost = Estimator(anatomy, setting).cost(place(anatomy, "attention"))
    assert cost.flops is None
    assert cost.unknown.endswith("is not known: 3 blocks that share their maps")


@pytest.mark.parametrize(
    ("config", "share"),
    [
        ({"model_type": "llama"}, 0.0),
        ({"model_type": "phi3"}, 1.0),
        ({"model_type": "gpt_neox", "rotary_pct": 0.5}, 0.5),
        ({"model_type": "phi", "rope_parameters": {"partial_rotary_factor": 0.4}}, 0.4),
    ],
)
def test_the_share_of_a_head_that_is_turned(config, share):
    assert read_blueprint(config).rotary_share == share


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "llama"}, 0),
        ({"model_type": "mistral"}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": False}, 0),
    ],
)
def test_the_window_of_attention(config, window):
    assert read_blueprint(config).window == window


@pytest.mark.parametrize(
    ("config", "order"),
    [
        ({"model_type": "gptj"}, "parallel"),
        ({"model_type": "gpt_neox"}, "parallel"),
        ({"model_type": "gpt_neox", "use_parallel_residual": False}, "pre"),
        ({"model_type": "stablelm"}, "pre"),
        ({"model_type": "opt"}, "pre"),
        ({"model_type": "bert"}, "post"),
    ],
)
def test_the_order_within_a_block(config, order):
    assert read_blueprint(config).order == order
