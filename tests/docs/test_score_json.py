"""Are the keys of docs/reference/json.md those that `score` and `allocate` print, and no others?"""

import json
import re

import pytest

from loratlas.cli.main import main

from .test_json import PAGE, keys

STUDY = """\
name: small
model: demo:gpt2
data: {source: demo:facts, format: prompt_completion, train: 16, test: 8, max_length: 64}
placements: {full: all}
training: {steps: 2, batch: 4}
"""
OF_PLACE = ("placement", "trainable_parameters", "warnings", "lora_config")


def section(name):
    return PAGE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def documented(name):
    return set(re.findall(r"^\| `([^`]+)` \|", section(name), flags=re.MULTILINE))


def example(name):
    return json.loads(re.search(r"```json\n(.*?)```", section(name), flags=re.DOTALL)[1])


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), "--json"])
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def own(found):
    """Return the keys that are not those of `place`."""
    return {key for key in found if not key.startswith(OF_PLACE)}


def _part(key):
    return re.sub(r"slices\.\w+$", "slices.PART", key)


def test_the_keys_are_those_of_the_page(capsys, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    scores = tmp_path / "scores.json"
    score = printed(
        capsys,
        "score",
        tmp_path / "study.yaml",
        "--method",
        "gradient",
        "--rows",
        8,
        "--out",
        scores,
    )
    # Slices are null where an output has one part; `gradient` has no option.
    found = {_part(key) for key in keys(score)} - {"scores[].slices"}
    shown = {_part(key) for key in keys(example("score"))}
    assert found == documented("score") - {"settings.options.OPTION"} == shown
    allocation = printed(capsys, "allocate", scores, "--budget", 30000, "--only", "attention")
    assert own(keys(allocation)) == documented("allocate") == own(keys(example("allocate")))
    assert set(OF_PLACE) <= allocation.keys()
