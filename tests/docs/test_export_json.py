"""Are the keys of docs/reference/json.md those that export and import print, and no others?"""

import json
import re

import pytest

from made_runs import make_run

from .test_json import PAGE, keys, printed


def section(name):
    return PAGE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def documented(name):
    return set(re.findall(r"^\| `([^`]+)` \|", section(name), flags=re.MULTILINE))


def example(name):
    return json.loads(re.search(r"```json\n(.*?)```", section(name), flags=re.DOTALL)[1])


@pytest.fixture
def run(tmp_path, tiny_folder):
    return make_run(tmp_path / "run", str(tiny_folder), "attention")


def test_export(capsys, run):
    found = printed(capsys, "export", str(run), "placed", "--to", "peft")
    assert keys(found) == documented("export") == keys(example("export"))


def test_import(capsys, run, tmp_path):
    found = printed(capsys, "import", str(run / "adapters"), "--out", str(tmp_path / "imported"))
    assert keys(found) == documented("import") == keys(example("import"))
