"""A relative path of a study file stays in its folder; what lies elsewhere is named whole."""

import json

import pytest

from loratlas.data.sources import read_source
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError, PlacementError
from loratlas.placement.placement import place

ROW = json.dumps({"prompt": "a", "completion": "b"}) + "\n"


@pytest.fixture
def root(tmp_path, anatomy):
    """The folder of a study, with data and a saved placement beside it, and links to them."""
    root = tmp_path / "study"
    root.mkdir()
    saved = json.dumps(place(anatomy, "attention.o", rank=2).to_json())
    for folder in (tmp_path, root):
        (folder / "rows.jsonl").write_text(ROW)
        (folder / "saved.json").write_text(saved)
    (root / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    (root / "link.json").symlink_to("../saved.json")
    (root / "up").symlink_to(tmp_path)
    return root


def rows(name, root):
    spec = DataSpec(source=name, format="prompt_completion")
    return read_source(spec, root=root).splits["train"]


@pytest.mark.parametrize("name", ["../rows.jsonl", "link.jsonl", "up/rows.jsonl"])
def test_data_outside_are_refused(root, name):
    with pytest.raises(DataError) as caught:
        rows(name, root)
    assert str(caught.value) == (
        f"{name}: leads out of {root}; a file elsewhere is given by its whole path"
    )


@pytest.mark.parametrize("name", ["../saved.json", "link.json", "up/saved.json"])
def test_placements_outside_are_refused(root, anatomy, name):
    with pytest.raises(PlacementError) as caught:
        place(anatomy, f'file("{name}")', root=root)
    assert str(caught.value) == (
        f'file("{name}"): leads out of {root}; a file elsewhere is given by its whole path'
    )


def test_a_whole_path_is_a_persons_word(root, tmp_path, anatomy):
    assert len(rows(str(tmp_path / "rows.jsonl"), root)) == 1
    assert len(rows(str(root / "link.jsonl"), root)) == 1
    assert place(anatomy, f'file("{tmp_path / "saved.json"}")', root=root).adapters


def test_paths_inside_are_read(root, anatomy):
    (root / "deep").mkdir()
    (root / "same").symlink_to(root)
    (root / "inner").symlink_to("deep")
    assert len(rows("same/rows.jsonl", root)) == 1
    assert place(anatomy, 'file("inner/../saved.json")', root=root).adapters
