"""A path stays where it starts, or is known not to."""

import pytest

from loratlas.paths import leads_out


@pytest.fixture
def root(tmp_path):
    """A folder with a file, links that stay in it, and links that do not."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").touch()
    (tmp_path / "rootless").touch()
    (root / "stays").symlink_to("inner/file")
    (root / "whole").symlink_to(root / "inner")
    (root / "leaves").symlink_to("../rootless")
    (root / "inner" / "up").symlink_to(tmp_path)
    (root / "nowhere").symlink_to(tmp_path / "missing")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    "path", ["file", "inner/file", "inner/../inner/file", "stays", "whole/file", "missing", "."]
)
def test_paths_that_stay(root, path):
    assert not leads_out(root, path)


@pytest.mark.parametrize(
    "path", ["..", "../rootless", "inner/../../x", "leaves", "inner/up/x", "nowhere", "/etc/passwd"]
)
def test_paths_that_leave(root, path):
    assert leads_out(root, path)


def test_a_folder_that_is_a_link_itself(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert not leads_out(tmp_path / "link", "whole/file")
    assert leads_out(tmp_path / "link", "../rootless")


def test_a_link_to_itself_stays(root):
    assert not leads_out(root, "loop")
