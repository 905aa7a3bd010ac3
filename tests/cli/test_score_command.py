"""`loratlas score`: a table, JSON, a file for `allocate`, and what is refused."""

import json

import pytest

from loratlas.allocate.table import ScoreTable


@pytest.fixture
def study(study_folder):
    return study_folder / "study.yaml"


def test_a_table_by_role_and_layer(cli, study):
    said = cli("score", study, "--method", "depth")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0].endswith("by depth: blocks, higher is better")
    cells = [line.split() for line in lines]
    assert ["layer", "qkv", "o", "up", "down"] in cells
    assert ["0", "1", "1", "1", "1"] in cells
    assert ["2", "3", "3", "3", "3"] in cells
    assert "Cost: 0 rows forward, 0 backward, 0.0 s, peak memory" in said.out


def test_json_alone_on_stdout_as_it_is_documented(cli, study):
    found = cli("score", study, "--method", "para", "--option", "rank=2", "--json").json
    assert {"method", "unit", "higher_is_better", "cost", "scores"} <= found.keys()
    assert found["method"] == "para"
    assert found["settings"]["options"] == {"rank": 2}
    assert found["settings"]["rows"] == 32
    assert len(found["scores"]) == 12
    assert {"path", "value", "stderr", "curve"} <= found["scores"][0].keys()
    assert found["cost"]["num_backwards"] == 12


def test_the_file_is_what_json_prints(cli, study, tmp_path):
    file = tmp_path / "scores.json"
    said = cli(
        "score", study, "--method", "inverted:parameters", "--only", "attention", "--out", file
    )
    assert said.code == 0, said
    assert said.out.rstrip().endswith(f"scores: {file}")
    table = ScoreTable.from_json(json.loads(file.read_text()))
    assert table.method == "inverted:parameters"
    assert len(table.scores) == 6
    assert all(".attn." in score.path for score in table.scores)


def test_rows_and_seed(cli, study):
    def scored(*options):
        said = cli("score", study, "--method", "gradient", "--json", *options)
        assert said.code == 0, said
        return [score["value"] for score in said.json["scores"]], said.json["settings"]

    first, settings = scored("--rows", 4, "--seed", 1)
    assert (settings["rows"], settings["seed"]) == (4, 1)
    assert first == scored("--rows", 4, "--seed", 1)[0]
    assert first != scored("--rows", 4, "--seed", 2)[0]
    assert first != scored("--rows", 5, "--seed", 1)[0]


def test_a_null_is_named_in_a_note(cli, study):
    said = cli("score", study, "--method", "gradient", "--rows", 8, "--null", "weights")
    assert said.code == 0, said
    assert "untrained models of this configuration" in said.out
    assert "The check took" in said.out


def test_groups_are_tried_into_a_run_folder(cli, study, study_folder):
    folder = study_folder / "tried"
    said = cli("score", study, "--method", "add_one_in", "--by", "layer", "--out", folder)
    assert said.code == 0, said
    assert "by add_one_in: nats per token of validation loss" in said.out
    table = ScoreTable.from_json(json.loads((folder / "scores.json").read_text()))
    assert len({score.value for score in table.scores}) == 3
    assert cli("results", folder, "--json").json["placements"].keys() == {
        "layer 0",
        "layer 1",
        "layer 2",
    }
    again = cli(
        "score", study, "--method", "add_one_in", "--by", "layer", "--out", folder, "--json"
    )
    assert again.json == table.to_json()


def test_the_list_of_methods(cli):
    said = cli("score", "--method", "list")
    assert said.code == 0, said
    assert "leave_one_out" in said.out
    assert "32 rows forward" in said.out
    found = cli("score", "--method", "list", "--json").json["methods"]
    assert {"gradient", "plop", "eva", "para", "uniform", "add_one_in"} <= {
        m["name"] for m in found
    }


@pytest.mark.parametrize("seed", [0, 3])
def test_brute_force_takes_the_seeds_of_the_study(refused, study, seed):
    message = refused("score", study, "--method", "add_one_in", "--seed", seed)
    assert message == "--seed: add_one_in does not take it"


def test_a_study_without_validation_rows_cannot_be_tried(refused, study, study_folder):
    study.write_text(study.read_text().replace("validation: 8", "validation: 0"))
    message = refused("score", study, "--method", "leave_one_out", "--out", study_folder / "run")
    assert message.endswith("data.validation: no validation rows; leave_one_out is read from them")
    assert not (study_folder / "run").exists()
