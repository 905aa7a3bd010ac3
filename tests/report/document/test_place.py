"""Does a report replace an earlier one, and nothing else?"""

import pytest

from loratlas.errors import RunFolderError, StoreError
from loratlas.report.document import write
from loratlas.report.document.place import GENERATOR, placed


def report(folder, text="old"):
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'{GENERATOR} 1">{text}')
    (folder / "report.md").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_report_takes_the_place_of_an_earlier_one(tmp_path):
    report(tmp_path / "report")
    with placed(tmp_path / "report") as partial:
        (partial / "index.html").write_text("new")
        assert names(tmp_path / "report") == ["index.html", "report.md"]
    assert names(tmp_path) == ["report"]
    assert names(tmp_path / "report") == ["index.html"]


def test_a_new_folder_is_made_with_what_is_above_it(tmp_path):
    with placed(tmp_path / "a" / "b") as partial:
        (partial / "index.html").write_text("new")
    assert names(tmp_path / "a") == ["b"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o700 == 0o700


def test_what_fails_leaves_the_earlier_one_alone(tmp_path):
    report(tmp_path / "report")
    with pytest.raises(StoreError, match="No space"), placed(tmp_path / "report"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["report"]
    assert (tmp_path / "report" / "report.md").read_text() == "old"


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(RunFolderError, match=r"holds index\.html, which is of no report"):
        placed(tmp_path / "site").__enter__()
    report(tmp_path / "report")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds notes\.txt"):
        placed(tmp_path / "report").__enter__()
    (tmp_path / "link").symlink_to(tmp_path / "report")
    with pytest.raises(RunFolderError, match="is no folder"):
        placed(tmp_path / "link").__enter__()
    assert names(tmp_path) == ["link", "report", "site"]


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(write, "find_spec", lambda name: None if name == "vl_convert" else name)
    with pytest.raises(write.RequestError) as error:
        write._require_packages()
    assert str(error.value) == (
        "a report needs vl-convert-python, which is not installed; pip install 'loratlas[report]'"
    )
