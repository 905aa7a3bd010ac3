"""What an explanation says is hit is what PEFT wraps: sites, ranks and scales."""

import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_models
from loratlas.placement.explain import explain
from loratlas.train.verify import wrapped_layers

EQUAL = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def by_peft(family, config):
    """Return path → (rank, scale) of everything that PEFT wraps, None where it raises."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = get_peft_model(tiny_models.fresh(family), LoraConfig(**config))
        except (ValueError, TypeError) as error:
            return None, str(error)
    layers = wrapped_layers(model)
    return {path: (one.r["default"], one.scaling["default"]) for path, one in layers.items()}, ""


def explained(family, config):
    explanation = explain(config, tiny_models.anatomy_of(family))
    placement = explanation.placement
    if explanation.refusal is not None:
        return None, explanation.refusal
    return {a.site.path: (a.rank, placement.scale(a)) for a in placement.adapters}, ""


def agree(family, config):
    theirs, why_theirs = by_peft(family, config)
    ours, why_ours = explained(family, config)
    assert ours == theirs, (config, why_ours, why_theirs)
    return ours


def ends(path):
    parts = path.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def configurations(family):
    anatomy = tiny_models.anatomy_of(family)
    modules = [s.path for s in anatomy.sites if s.kind != "expert"]
    parameters = [s.path if s.kind == "expert" else f"{s.path}.weight" for s in anatomy.sites]
    suffixes = st.sampled_from(sorted({end for path in modules for end in ends(path)}))
    shallow = st.sampled_from(sorted({end for path in modules for end in ends(path)[-2:]}))
    older = ["gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"]
    entry = st.one_of(
        suffixes, shallow, shallow, st.sampled_from(["valu_proj", "self_attn", *older])
    )
    expression = st.one_of(
        shallow.map(lambda name: rf".*\.{re.escape(name)}"),
        st.tuples(st.integers(0, 2), shallow).map(lambda p: rf".*\.{p[0]}\..*{re.escape(p[1])}"),
        st.lists(shallow, min_size=1, max_size=2).map(lambda n: rf".*({'|'.join(n)})$"),
        st.sampled_from(["all-linear", "All-Linear", "q_proj", r".*\.[0]\..*(attn|mlp)\.c_.*"]),
    )
    parameter = st.sampled_from(
        sorted({e for p in parameters for e in ends(p)[:-1] if e != "weight"})
    )
    layer = st.integers(-1, 3)
    key = st.one_of(
        suffixes,
        suffixes.map(re.escape),
        shallow.map(lambda name: rf".*\.{name}"),
        parameter,
        st.sampled_from([r"\d+.*", ".*"]),
    )
    listed = {
        "target_modules": st.lists(entry, min_size=1, max_size=4)
        | st.lists(suffixes, min_size=18, max_size=24),
        "layers_to_transform": st.none() | layer | st.lists(layer, max_size=3),
        "layers_pattern": st.sampled_from([None, "layers", "h", ["layer", "block"], "", []]),
    }
    target = st.one_of(
        st.fixed_dictionaries(listed),
        st.fixed_dictionaries({"target_modules": st.none() | expression | st.just([])}),
    )
    more = st.fixed_dictionaries(
        {"r": st.integers(1, 4), "lora_alpha": st.integers(1, 9), "use_rslora": st.booleans()},
        optional={
            "target_parameters": st.lists(parameter, min_size=1, max_size=3),
            "exclude_modules": st.lists(entry, min_size=1, max_size=2) | expression,
            "modules_to_save": st.sampled_from([["lm_head"], ["embed_tokens"]]),
            "rank_pattern": st.dictionaries(key, st.integers(0, 5) | st.integers(1, 5), max_size=3),
            "alpha_pattern": st.dictionaries(key, st.integers(1, 9), max_size=3),
            "lora_dropout": st.sampled_from([0.0, 0.0, 0.1]),
            "use_dora": st.booleans(),
            "fan_in_fan_out": st.booleans(),
        },
    )
    return st.tuples(target, more).map(lambda both: {**both[0], **both[1]})


CASES = {
    "a dead entry": ("llama", {"target_modules": ["q_proj", "valu_proj"]}),
    "layers, one of them there": (
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [2, 7, 99, -1]},
    ),
    "no layers": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": []}),
    "names in full beside layers": (
        "llama",
        {"target_modules": ["v_proj", "lm_head"], "layers_to_transform": 1},
    ),
    "all-linear with layers": (
        "llama",
        {"target_modules": "all-linear", "layers_to_transform": [0]},
    ),
    "all-linear": ("gpt2", {"target_modules": "all-linear"}),
    "all-linear on experts": ("mixtral", {"target_modules": "all-linear", "r": 4}),
    "all-linear on dense and sparse": ("qwen3_moe", {"target_modules": "all-linear"}),
    "defaults": ("bert", {"target_modules": None}),
    "defaults on experts": ("mixtral", {"target_modules": None}),
    "first pattern": (
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 3, "0.self_attn.q_proj": 5}},
    ),
    "patterns on experts": (
        "mixtral",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["experts.down_proj"],
            "rank_pattern": {"experts.down_proj": 3},
            "alpha_pattern": {".*down_proj": 5},
            "use_rslora": True,
        },
    ),
    "one text on experts": ("mixtral", {"target_modules": r".*layers\.0\..*q_proj"}),
    "half of what is fused": ("qwen3_moe", {"target_modules": ["up_proj"]}),
    "dropout on experts": (
        "mixtral",
        {"target_modules": [], "target_parameters": ["down_proj"], "lora_dropout": 0.1},
    ),
    "saved and adapted": (
        "llama",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["lm_head.weight"],
            "modules_to_save": ["head"],
        },
    ),
    "two stacks": ("t5", {"target_modules": ["q"], "layers_to_transform": [1]}),
}


@pytest.mark.parametrize(("family", "config"), CASES.values(), ids=CASES.keys())
def test_a_known_pitfall_is_explained_as_peft_acts(family, config):
    agree(family, config)


def check_generated(family, number):
    hits = []

    @settings(EQUAL, max_examples=number)
    @given(configurations(family))
    def check(config):
        hits.append(bool(agree(family, config)))

    check()
    assert sum(hits) > number / 5  # not only refusals


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_generated_configurations_hit_what_peft_wraps(family):
    check_generated(family, 40)


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_many_generated_configurations_hit_what_peft_wraps(family):
    check_generated(family, 600)
