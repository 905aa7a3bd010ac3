"""``place --peft`` and ``diff``: what they show, and what they refuse in one message."""

import json
import time

import pytest

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"]}


@pytest.fixture
def saved(tmp_path):
    """Writes a configuration, changed where the test wants it, and returns its folder."""

    def write(**fields):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**CONFIG, **fields}))
        return tmp_path

    return write


def test_a_configuration_is_explained(cli, tiny_folder, saved):
    folder = saved(target_modules=["c_attn", "c_proj", "c_prj"], layers_to_transform=[1, 9])
    for file in (folder, folder / "adapter_config.json"):
        said = cli("place", tiny_folder, "--peft", file)
        assert (said.code, said.err) == (0, "")
        for text in ("c_prj", "nothing", "feed_forward.down (decoder)", "3 of 15 sites"):
            assert text in said.out
        codes = [line.split(":")[0] for line in said.out.splitlines() if ": " in line]
        assert {"dead-target", "ambiguous-name", "layer-out-of-range"} <= set(codes)


def test_its_json_is_a_placement_that_a_rule_and_diff_read(cli, tiny_folder, saved, tmp_path):
    said = cli("place", tiny_folder, "--peft", saved(use_rslora=True), "--json").json
    assert [lint["code"] for lint in said["warnings"]] == ["ambiguous-name"]
    assert [(each["target"], len(each["paths"])) for each in said["targets"]] == [
        ("c_attn", 3),
        ("c_proj", 6),
    ]
    assert len(said["lora_config"]["target_modules"]) == 9
    assert said["lora_config"]["use_rslora"] is True
    (tmp_path / "explained.json").write_text(json.dumps(said))
    same = cli("diff", tiny_folder, tmp_path / "explained.json", tmp_path, "--json").json
    assert same == {
        "only_left": [],
        "only_right": [],
        "changed": [],
        "trainable_parameters": dict.fromkeys(("left", "right"), 4 * 3 * (128 + 64 + 160)),
    }
    rule = cli("place", tiny_folder, f'file("{tmp_path}/explained.json")', "--json").json
    assert [each["path"] for each in rule["placement"]] == [
        each["path"] for each in said["placement"]
    ]


def test_two_placements_differ_by_role_and_layer(cli, tiny_folder, saved):
    left = "attention:4 + feed_forward.up @ last(1):2"
    said = cli("diff", tiny_folder, left, saved(rank_pattern={"0.attn.c_proj": 2}), "--rank", 4)
    assert said.code == 0
    assert "1 sites only left, 3 only right, 1 with another rank or alpha" in said.out
    data = cli(
        "diff", tiny_folder, left, saved(rank_pattern={"0.attn.c_proj": 2}), "--json", "--rank", 4
    ).json
    assert data["only_left"] == [{"path": "transformer.h.2.mlp.c_fc", "rank": 2, "alpha": 4.0}]
    assert [each["path"] for each in data["only_right"]] == [
        f"transformer.h.{n}.mlp.c_proj" for n in range(3)
    ]
    assert data["changed"] == [
        {
            "path": "transformer.h.0.attn.c_proj",
            "left": {"rank": 4, "alpha": 8.0},
            "right": {"rank": 2, "alpha": 8.0},
        }
    ]
    assert "no difference" in cli("diff", tiny_folder, "all", "attention | feed_forward").out


def test_checkpointing_is_a_question_before_the_run(cli, tiny_folder):
    said = cli("place", tiny_folder, "attention @ last(1)", "--checkpointing", "--json").json
    assert [lint["code"] for lint in said["warnings"]] == ["frozen-prefix-lost"]


def test_ten_thousand_targets_are_answered_in_seconds(cli, tiny_folder, saved):
    folder = saved(target_modules=[*(f"block.{n}.projj" for n in range(10_000)), "c_fc"])
    start = time.process_time()
    said = cli("place", tiny_folder, "--peft", folder)
    assert time.process_time() - start < 10
    assert said.code == 0
    assert "10000 targets hit nothing" in said.out
    assert "... 10001 in all" in said.out
    assert len(said.out) < 20_000
