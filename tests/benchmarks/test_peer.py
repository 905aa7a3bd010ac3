"""Does the peer train what it is told to, as a person would with PEFT and Trainer?"""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec

# PEFT asks transformers 5.23 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(scope="module")
def told(benchmarks, tiny, materials_of, tmp_path_factory):
    """What the peer is told of a tiny trial, sites aside."""
    folder = tmp_path_factory.mktemp("peer")
    work = tiny(benchmarks.single.WORK, epochs=1)
    _, config = next(benchmarks.work.peer_configs(work, materials_of(work), folder))
    return config


SITES = [
    {"path": "transformer.h.1.attn.c_proj", "rank": 2, "alpha": 4},
    {"path": "transformer.h.1.mlp.c_proj", "rank": 3, "alpha": 9},
    {"path": "transformer.h.11.attn.c_attn", "rank": 2, "alpha": 1},
]


@pytest.fixture(scope="module")
def trained(benchmarks, told):
    return benchmarks.peer.run({**told, "sites": SITES})


def test_trains_exactly_the_sites_asked_for(trained, told):
    """GPT-2 has a c_proj in both parts of a block, and block 1 is the beginning of 10 and 11."""
    assert trained["sites"] == [site["path"] for site in SITES]
    saved = load_file(f"{told['adapter']}/adapter_model.safetensors")
    assert {key: len(tensor) for key, tensor in saved.items() if "lora_A" in key} == {
        f"base_model.model.{site['path']}.lora_A.weight": site["rank"] for site in SITES
    }
    assert len(saved) == 2 * len(SITES)
    # Of each site rank x (d_in + d_out), at width 32.
    assert trained["trainable_parameters"] == 2 * (32 + 32) + 3 * (128 + 32) + 2 * (32 + 96)


def test_scales_are_those_asked_for(benchmarks, trained, told):
    model = PeftModel.from_pretrained(
        benchmarks.peer.load_model(told["model"], "fp32"), told["adapter"]
    )
    parts = dict(model.get_base_model().named_modules())
    scales = [parts[site["path"]].scaling["default"] for site in SITES]
    assert scales == [2, 3, 0.5]


def test_trains_and_scores(trained, told):
    assert trained["steps"] == 2  # 6 rows, 4 a step
    # The last step moves less than the first: B begins at 0, so a change shows that it trained.
    saved = load_file(f"{told['adapter']}/adapter_model.safetensors")
    assert all(tensor.any() for key, tensor in saved.items() if "lora_B" in key)
    assert trained["losses"]["test"] == pytest.approx(torch.tensor(300.0).log().item(), abs=0.1)


def test_rows_are_tokenised_as_loratlas_does(benchmarks, told, tmp_path):
    """Rows that are cut, whose answer is cut away, and whose prompt is one token."""
    rows = [
        {"prompt": "w1 w2", "completion": " w3 w4"},
        {"prompt": "w1", "completion": " w9"},
        {"prompt": "w1 " * 40, "completion": " w5" * 40},
        {"prompt": "w1 " * 60, "completion": " w5"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = benchmarks.peer.AutoTokenizer.from_pretrained(told["model"])
    theirs = benchmarks.peer.tokenise(file, tokenizer, 48)
    files = {"train": str(file), "test": told["rows"]["test"]}
    spec = DataSpec(files=files, format="prompt_completion", max_length=48)
    ours = prepare(spec, tokenizer, root=tmp_path).train.rows
    assert [row["input_ids"] for row in theirs] == [row.ids.tolist() for row in ours]
    assert [row["labels"] for row in theirs] == [row.labels.tolist() for row in ours]
    assert [benchmarks.peer.num_scored(row["labels"]) for row in theirs] == [3, 2, 8]


def test_a_base_in_bf16_has_no_dropout_and_adapters_in_fp32(benchmarks, told):
    model = benchmarks.peer.load_model(told["model"], "bf16")
    drops = [part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    assert drops
    assert not any(drops)
    adapted = benchmarks.peer.get_peft_model(model, benchmarks.peer.lora_config(SITES, model))
    types = {p.requires_grad: p.dtype for p in adapted.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}


def test_settings_are_the_fastest_in_stock(benchmarks, told, tmp_path):
    config = {**told, "micro_batch": 2, "accumulation": 2}
    arguments = benchmarks.peer.arguments(config, str(tmp_path))
    assert arguments.train_sampling_strategy == "group_by_length"
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 4
    assert (arguments.logging_strategy, arguments.save_strategy) == ("no", "no")
    assert arguments.report_to == []
    assert not arguments.logging_nan_inf_filter
