from pathlib import Path

import pytest

from bad_input.world import build


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder that cases are laid out from, without a finished run."""
    folder = tmp_path_factory.mktemp("world")
    build(folder)
    return folder
