import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from loratlas.study.spec import ModelRef, PlacementSpec, load_study, parse_study

PATH = Path("study.yaml")
MINIMAL = """\
name: small
model: demo:gpt2
data: {source: "demo:facts", format: prompt_completion}
placements: {attention: attention, full: all}
"""
Edit = Callable[..., str]


def test_every_key_of_the_example_arrives(example: str):
    study = parse_study(example, PATH)
    assert study.name == "where-on-alpaca"
    assert study.model == ModelRef(name="microsoft/DialoGPT-medium")
    assert (study.data.source, study.data.format) == ("tatsu-lab/alpaca", "alpaca")
    assert (study.data.train, study.data.validation, study.data.test) == (1000, 200, 500)
    assert (study.data.loss_on, study.data.max_length, study.data.files) == ("response", 256, {})
    assert study.baseline == "full"
    assert (study.lora.rank, study.lora.alpha) == (16, 32)
    assert (study.lora.scaling, study.lora.dropout) == ("constant", 0)
    assert study.match == "parameters"
    training = study.training
    assert (training.epochs, training.steps, training.batch, training.accumulation) == (
        3,
        None,
        4,
        1,
    )
    assert training.learning_rate == (1e-4, 2e-4, 4e-4)
    assert (training.scheduler, training.warmup, training.weight_decay) == ("cosine", 0.1, 0.01)
    assert (training.clip, training.base_dropout, training.dtype) == (1, 0, "fp32")
    assert (study.seeds, study.sweep_seeds) == ((0, 1, 2, 3, 4, 5), 2)
    assert (study.measures, study.margin, study.device) == ((), 0.05, "auto")


def test_the_forms_of_a_placement(example: str):
    placements = parse_study(example, PATH).placements
    assert list(placements)[:2] == ["full", "attention"]
    assert placements["full"] == PlacementSpec(name="full", rule="all", match=None, line=13)
    assert placements["as_published"] == PlacementSpec(
        name="as_published", rule="names(c_attn, c_proj)", match="none", line=17
    )
    assert placements["parts_form"].rule == [
        {"rule": "attention", "rank": 16},
        {"rule": "feed_forward", "rank": 4},
    ]


def test_a_rank_beside_a_rule_is_the_rank_of_its_one_part(edit: Edit):
    written = parse_study(edit(("full: all", "full: {rule: all, rank: 4}")), PATH)
    short = parse_study(edit(("full: all", "full: all:4")), PATH)
    assert written.digest == short.digest


def test_what_a_short_file_leaves_out():
    study = parse_study(MINIMAL, PATH)
    assert study.baseline == "attention"
    assert study.match == "parameters"
    assert study.seeds == (0, 1, 2, 3, 4, 5)
    assert study.sweep_seeds is None
    assert study.measures == ()
    assert study.to_json()["measures"] == ["loss"]
    assert study.margin == 0.05
    assert study.model == ModelRef(name="demo:gpt2", revision=None, trust_remote_code=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("model: {name: a/b, revision: v1}", ModelRef(name="a/b", revision="v1")),
        ("model: a/b\ntrust_remote_code: true", ModelRef(name="a/b", trust_remote_code=True)),
        (
            "model: {name: a/b, trust_remote_code: true}",
            ModelRef(name="a/b", trust_remote_code=True),
        ),
    ],
)
def test_the_forms_of_a_model(line: str, expected: ModelRef):
    assert parse_study(MINIMAL.replace("model: demo:gpt2", line), PATH).model == expected


def test_files_by_split():
    text = MINIMAL.replace('source: "demo:facts"', "source: {train: a.jsonl, test: b.jsonl}")
    data = parse_study(text, PATH).data
    assert (data.source, data.files) == (None, {"train": "a.jsonl", "test": "b.jsonl"})


def test_a_list_of_seeds_is_literal_and_one_rate_is_a_sweep_of_one():
    study = parse_study(MINIMAL + "seeds: [7, 3]\ntraining: {learning_rate: 1e-4}\n", PATH)
    assert study.seeds == (7, 3)
    assert study.training.learning_rate == (1e-4,)


def test_null_turns_clipping_off_and_keeps_the_base_dropout():
    training = parse_study(MINIMAL + "training: {clip: null, base_dropout: ~}\n", PATH).training
    assert (training.clip, training.base_dropout) == (None, None)


def test_a_study_is_frozen(example: str):
    study = parse_study(example, PATH)
    with pytest.raises(FrozenInstanceError):
        study.name = "other"  # type: ignore[misc]


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    study = load_study(Path("small.yaml"))
    assert (study.path, study.root) == (Path("small.yaml"), tmp_path)
    assert study.placements["full"].line == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: where-on-alpaca", "name: another"),
        ("seeds: 6", "seeds: [0, 1, 2, 3, 4, 5]  # a comment"),
        ("seeds: 6", "device: cpu\nseeds: 6"),
        ("seeds: 6", "version: 1\nseeds: 6"),
        ("alpha: 32,", "alpha: 32.0,"),
        ("margin: 5%", "margin: 0.05"),
        ("match: parameters\n", ""),
        ("all @ layers(50%..)", "all@layers( 50% .. )"),
        ("attention: attention\n", "attention: {rule: attention, match: parameters}\n"),
        (
            "{parts: [{rule: attention, rank: 16}, {rule: feed_forward, rank: 4}]}",
            "attention:16 + feed_forward:4",
        ),
    ],
)
def test_the_digest_is_blind_to_what_changes_no_result(
    example: str, edit: Edit, old: str, new: str
):
    first = parse_study(example, PATH)
    assert parse_study(edit((old, new)), Path("elsewhere/b.yaml")).digest == first.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("microsoft/DialoGPT-medium", "microsoft/DialoGPT-small"),
        ("microsoft/DialoGPT-medium", "{name: microsoft/DialoGPT-medium, revision: v2}"),
        ("train: 1000", "train: 1001"),
        ("full: all", "full: all:8"),
        ("full: all", "whole: all\n  full: all"),
        ("match: none", "match: parameters"),
        ("baseline: full", "baseline: attention"),
        ("alpha: 32,", "alpha: 16,"),
        ("epochs: 3", "epochs: 2"),
        ("4e-4", "5e-4"),
        ("seeds: 6", "seeds: 7"),
        ("sweep_seeds: 2", "sweep_seeds: 3"),
        ("margin: 5%", "margin: 4%"),
    ],
)
def test_the_digest_sees_what_changes_a_result(example: str, edit: Edit, old: str, new: str):
    assert parse_study(edit((old, new)), PATH).digest != parse_study(example, PATH).digest


def test_reading_a_study_loads_neither_torch_nor_transformers(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(MINIMAL)
    code = (
        "import sys; from pathlib import Path; from loratlas.study.spec import load_study;"
        "load_study(Path(sys.argv[1])).digest;"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "small.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_model_folder_is_looked_for_beside_the_study_file(tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    text = "name: x\nmodel: {}\n"
    text += "data: {{source: a.jsonl, format: alpaca}}\nplacements: {{full: all}}\n"
    study = parse_study(text.format("models/mine"), tmp_path / "study.yaml")
    assert study.model.name == str(tmp_path / "models" / "mine")
    hub = parse_study(text.format("microsoft/DialoGPT-medium"), tmp_path / "study.yaml")
    assert hub.model.name == "microsoft/DialoGPT-medium"
