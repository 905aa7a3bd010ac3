"""The benchmark's small models and measurements, so that tests and benchmark measure alike."""

import importlib.util
import sys
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[2] / "benchmarks" / "planner.py"


@pytest.fixture(scope="session")
def planner():
    """The module ``benchmarks/planner.py``."""
    spec = importlib.util.spec_from_file_location("planner_benchmark", _FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def small(planner):
    """The anatomies of the benchmark's small models, by name, each read once."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = planner.read_config(planner.MODELS[name])
        return known[name]

    return read
