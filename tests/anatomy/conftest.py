"""Small configurations, written to a folder and read as a person would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy

ReadConfig = Callable[..., Anatomy]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a ``config.json`` and return its folder."""

    def write(config: dict[str, Any]) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.fixture
def read_config(write_config: Callable[[dict[str, Any]], Path]) -> ReadConfig:
    """Read the anatomy of a configuration."""

    def reading(config: dict[str, Any]) -> Anatomy:
        return read(write_config(config), cache=False)

    return reading
