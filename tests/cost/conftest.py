"""The benchmarks' small models and measurements, so that tests and benchmarks measure alike."""

import importlib.util
import sys
from pathlib import Path

import pytest

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _load(name):
    """Load a benchmark under its own name, by which the others import it."""
    spec = importlib.util.spec_from_file_location(name, _BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def planner():
    """The module ``benchmarks/planner.py``."""
    return _load("planner")


@pytest.fixture(scope="session")
def memory(planner):
    """The module ``benchmarks/memory.py``."""
    return _load("memory")


@pytest.fixture(scope="session")
def small(planner, memory):
    """The anatomies of the benchmarks' small models, by name, each read once."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = planner.read_config(memory.MODELS[name])
        return known[name]

    return read
