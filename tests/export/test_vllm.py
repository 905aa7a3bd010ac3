"""What vLLM reads: one rank, one scale, a highest rank of its list, and nothing that it refuses."""

import json
import re
from contextlib import closing
from dataclasses import replace

import yaml

from loratlas.export.vllm import served_name
from loratlas.export.write import export
from loratlas.study.folder import open_run
from made_runs import make_run, model_folder, save_empty_adapter


def exported(run, out, **options):
    with closing(open_run(run)) as store:
        return export(run, store, options.pop("trial", "placed"), "vllm", out=out, **options)


def test_the_adapter_is_one_that_vllm_accepts(tmp_path):
    from safetensors import safe_open

    model = model_folder("llama", tmp_path)
    rank, served = 5, 8
    rule = f"attention.q:{rank} + feed_forward.down:1"
    run = make_run(tmp_path / "run", model, rule, scaling="rslora", dropout=0.1)
    found = exported(run, tmp_path / "out")
    assert found["files"] == [
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "vllm.yaml",
    ]
    asked = yaml.safe_load((tmp_path / "out/vllm.yaml").read_text())
    assert asked == {
        "model": model,
        "enable-lora": True,
        "max-lora-rank": served,
        "lora-modules": ["placed=adapter"],
    }
    config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
    # As `PEFTHelper.validate_legal` and `__post_init__` look at it.
    assert config["r"] == rank <= asked["max-lora-rank"]
    assert config["lora_alpha"] / config["r"] == 1
    refused = ("use_rslora", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
    assert not any(config[key] for key in refused)
    assert config["bias"] == "none"
    with safe_open(tmp_path / "out/adapter/adapter_model.safetensors", framework="np") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    # As `parse_fine_tuned_lora_name` reads names; every adapter has the one rank.
    form = r"base_model\.model\.(model\.layers\.\d\.\w+\.\w+)\.lora_([AB])\.weight"
    parts = {name: re.fullmatch(form, name) for name in shapes}
    assert all(parts.values())
    assert {shape[0 if parts[name][2] == "A" else 1] for name, shape in shapes.items()} == {rank}


def test_a_name_that_a_request_can_ask_for(tmp_path, tiny_folder):
    from loratlas.export.subject import subject_of

    run = make_run(tmp_path / "run", str(tiny_folder), "attention", weights=False)
    save_empty_adapter(run)
    with closing(open_run(run)) as store:
        subject = subject_of(run, store, "placed")
    for name, served in {"a b=c": "a-b-c", "...": "adapter", "größe": "gr-e"}.items():
        assert served_name(replace(subject, name=name)) == served
