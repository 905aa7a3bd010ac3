"""The roles of each family: against the golden file, and against the source read by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "make_families.py"


def _load():
    spec = importlib.util.spec_from_file_location("make_families", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TOOL_MODULE = _load()
GOLDEN = json.loads(TOOL_MODULE.GOLDEN.read_text())

_QKVO = {f"{name}_proj": f"attention.{name}" for name in "qkvo"}
_GATED = {f"mlp.{part}_proj": f"feed_forward.{part}" for part in ("gate", "up", "down")}
_LLAMA = {**{f"self_attn.{name}": role for name, role in _QKVO.items()}, **_GATED}
_MLP = {"mlp.dense_h_to_4h": "feed_forward.up", "mlp.dense_4h_to_h": "feed_forward.down"}
_EXPERTS = {
    "mlp.experts.gate_up_proj": "expert.gate_up",
    "mlp.experts.down_proj": "expert.down",
    "mlp.gate.weight": "router",
}
_SHARED = {f"{part}_proj": f"shared_expert.{part}" for part in ("gate", "up", "down")}
_LATENT = {
    "self_attn.q_a_proj": "attention.q_down",
    "self_attn.q_b_proj": "attention.q_up",
    "self_attn.kv_a_proj_with_mqa": "attention.kv_down",
    "self_attn.kv_b_proj": "attention.kv_up",
    "self_attn.o_proj": "attention.o",
    **_EXPERTS,
    **{f"mlp.shared_experts.{name}": role for name, role in _SHARED.items()},
}
_BERT = {
    "attention.self.query": "attention.q",
    "attention.self.key": "attention.k",
    "attention.self.value": "attention.v",
    "attention.output.dense": "attention.o",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
}
_MAMBA = {
    "in_proj": "recurrent.in",
    "x_proj": "recurrent.inner",
    "dt_proj": "recurrent.inner",
    "out_proj": "recurrent.out",
}

# Read in the forward passes of transformers 5.23, by a person: block → its sites.
BY_HAND = {
    "gpt2": {
        "transformer.h.1": {
            "attn.c_attn": "attention.qkv",
            "attn.c_proj": "attention.o",
            "mlp.c_fc": "feed_forward.up",
            "mlp.c_proj": "feed_forward.down",
        }
    },
    "llama": {"model.layers.1": _LLAMA},
    "qwen3": {"model.layers.1": _LLAMA},
    "phi3": {
        "model.layers.1": {
            "self_attn.qkv_proj": "attention.qkv",
            "self_attn.o_proj": "attention.o",
            "mlp.gate_up_proj": "feed_forward.gate_up",
            "mlp.down_proj": "feed_forward.down",
        }
    },
    "falcon": {
        "transformer.h.1": {
            "self_attention.query_key_value": "attention.qkv",
            "self_attention.dense": "attention.o",
            **_MLP,
        }
    },
    "gpt_neox": {
        "gpt_neox.layers.1": {
            "attention.query_key_value": "attention.qkv",
            "attention.dense": "attention.o",
            **_MLP,
        }
    },
    "opt": {
        "model.decoder.layers.1": {
            "self_attn.q_proj": "attention.q",
            "self_attn.k_proj": "attention.k",
            "self_attn.v_proj": "attention.v",
            "self_attn.out_proj": "attention.o",
            "fc1": "feed_forward.up",
            "fc2": "feed_forward.down",
        }
    },
    "mixtral": {"model.layers.1": {**{f"self_attn.{n}": r for n, r in _QKVO.items()}, **_EXPERTS}},
    "gpt_oss": {
        "model.layers.1": {
            **{f"self_attn.{n}": r for n, r in _QKVO.items()},
            "mlp.router.weight": "router",
            "mlp.experts.gate_up_proj": "expert.gate_up",
            "mlp.experts.down_proj": "expert.down",
        }
    },
    # One number per token decides how much the shared expert counts.
    "qwen2_moe": {
        "model.layers.1": {
            **{f"self_attn.{n}": r for n, r in _QKVO.items()},
            **_EXPERTS,
            **{f"mlp.shared_expert.{n}": r for n, r in _SHARED.items()},
            "mlp.shared_expert_gate": "router",
        }
    },
    "deepseek_v3": {"model.layers.1": _LATENT},
    # The indexer picks positions by a top-k; it makes neither queries nor values.
    "deepseek_v32": {
        "model.layers.1": {
            **_LATENT,
            "self_attn.indexer.wq_b": "other",
            "self_attn.indexer.wk": "other",
            "self_attn.indexer.weights_proj": "other",
        }
    },
    # Queries and outputs of attention are made by chosen experts, keys and values are not.
    "jetmoe": {
        "model.layers.1": {
            "self_attention.experts.input_linear.weight": "attention.q",
            "self_attention.experts.output_linear.weight": "attention.o",
            "self_attention.experts.router.layer": "router",
            "self_attention.kv_proj": "attention.kv",
            "mlp.input_linear.weight": "expert.gate_up",
            "mlp.output_linear.weight": "expert.down",
            "mlp.router.layer": "router",
        }
    },
    "mamba": {"backbone.layers.1": {f"mixer.{n}": r for n, r in _MAMBA.items()}},
    "jamba": {
        "model.layers.0": {
            **{f"mamba.{n}": r for n, r in _MAMBA.items()},
            **{f"feed_forward.{p}_proj": f"feed_forward.{p}" for p in ("gate", "up", "down")},
        }
    },
    # Linear attention with a state per block, beside a layer of softmax attention.
    "minimax": {
        "model.layers.0": {
            "self_attn.qkv_proj": "recurrent.in",
            "self_attn.output_gate": "recurrent.in",
            "self_attn.out_proj": "recurrent.out",
            **_EXPERTS,
        },
        "model.layers.1": {**{f"self_attn.{n}": r for n, r in _QKVO.items()}, **_EXPERTS},
    },
    # sigmoid(receptance) is multiplied with the result of the block.
    "rwkv": {
        "rwkv.blocks.1": {
            "attention.key": "recurrent.in",
            "attention.value": "recurrent.in",
            "attention.receptance": "recurrent.in",
            "attention.output": "recurrent.out",
            "feed_forward.key": "feed_forward.up",
            "feed_forward.receptance": "feed_forward.gate",
            "feed_forward.value": "feed_forward.down",
        }
    },
    "bert": {"bert.encoder.layer.1": _BERT},
    # Positions are projected for scores of their own (content to position, and back).
    "deberta": {
        "deberta.encoder.layer.1": {
            "attention.self.in_proj": "attention.qkv",
            "attention.self.pos_proj": "other",
            "attention.self.pos_q_proj": "other",
            **{k: r for k, r in _BERT.items() if ".self." not in k},
        }
    },
    "deberta-v2": {
        "deberta.encoder.layer.1": {
            **{k.replace(".self.", ".self.") + "_proj": r for k, r in _BERT.items() if "self" in k},
            "attention.self.pos_key_proj": "other",
            "attention.self.pos_query_proj": "other",
            **{k: r for k, r in _BERT.items() if ".self." not in k},
        }
    },
    "albert": {
        "albert.encoder.albert_layer_groups.0.albert_layers.0": {
            "attention.query": "attention.q",
            "attention.key": "attention.k",
            "attention.value": "attention.v",
            "attention.dense": "attention.o",
            "ffn": "feed_forward.up",
            "ffn_output": "feed_forward.down",
        }
    },
    "modernbert": {
        "model.layers.1": {
            "attn.Wqkv": "attention.qkv",
            "attn.Wo": "attention.o",
            "mlp.Wi": "feed_forward.gate_up",
            "mlp.Wo": "feed_forward.down",
        }
    },
    "t5": {
        "decoder.block.1": {
            **{f"layer.0.SelfAttention.{p}": f"attention.{p}" for p in "qkvo"},
            **{f"layer.1.EncDecAttention.{p}": f"cross_attention.{p}" for p in "qkvo"},
            "layer.2.DenseReluDense.wi": "feed_forward.up",
            "layer.2.DenseReluDense.wo": "feed_forward.down",
        }
    },
    "bart": {
        "model.decoder.layers.1": {
            **{f"self_attn.{p}_proj": f"attention.{p}" for p in "qkv"},
            "self_attn.out_proj": "attention.o",
            **{f"encoder_attn.{p}_proj": f"cross_attention.{p}" for p in "qkv"},
            "encoder_attn.out_proj": "cross_attention.o",
            "fc1": "feed_forward.up",
            "fc2": "feed_forward.down",
        }
    },
    # Projections of global tokens run only where a global mask is given.
    "led": {
        "led.encoder.layers.1": {
            **{
                f"self_attn.longformer_self_attn.{name}": f"attention.{name[0]}"
                for name in ("query", "key", "value")
            },
            **{
                f"self_attn.longformer_self_attn.{name}_global": "other"
                for name in ("query", "key", "value")
            },
            "self_attn.output": "attention.o",
            "fc1": "feed_forward.up",
            "fc2": "feed_forward.down",
        }
    },
}


@pytest.mark.parametrize("family", TOOL_MODULE.FAMILIES)
def test_roles_are_as_in_the_golden_file(family):
    found = TOOL_MODULE.summary(TOOL_MODULE.read_family(family))
    assert found == GOLDEN[family], f"{family}: {TOOL_MODULE.REVIEW}"


def test_golden_file_holds_the_families_of_the_tool_and_no_others():
    assert list(GOLDEN) == list(TOOL_MODULE.FAMILIES)
    assert len(GOLDEN) >= 40


@pytest.mark.parametrize("family", BY_HAND)
def test_roles_are_as_a_person_reads_them(family):
    anatomy = TOOL_MODULE.read_family(family)
    for block, expected in BY_HAND[family].items():
        found = {
            site.path.removeprefix(f"{block}."): str(site.role)
            for site in anatomy.sites
            if site.path.startswith(f"{block}.")
        }
        assert found == expected


def test_page_of_families_is_made_from_the_golden_file():
    assert TOOL_MODULE.TABLE.read_text() == TOOL_MODULE.table(GOLDEN), TOOL_MODULE.REVIEW


def test_a_difference_is_told_and_nothing_is_written(monkeypatch, capsys, tmp_path):
    golden = tmp_path / "families.json"
    golden.write_text(json.dumps({"gpt2": {}}))
    monkeypatch.setattr(TOOL_MODULE, "GOLDEN", golden)
    monkeypatch.setattr(TOOL_MODULE, "ROOT", tmp_path)
    monkeypatch.setattr(TOOL_MODULE, "FAMILIES", {"gpt2": TOOL_MODULE.FAMILIES["gpt2"]})
    monkeypatch.setattr(sys, "argv", ["make_families.py"])
    assert TOOL_MODULE.main() == 1
    assert capsys.readouterr().out == (
        "gpt2: not as in families.json; a change here is reviewed, not regenerated\n"
    )
    assert golden.read_text() == '{"gpt2": {}}'
