"""The benchmarks' small models and measurements, so that tests and benchmarks measure alike."""

import pytest

from benchmark_modules import load_benchmark


@pytest.fixture(scope="session")
def planner():
    """The module ``benchmarks/planner.py``."""
    return load_benchmark("planner")


@pytest.fixture(scope="session")
def memory(planner):
    """The module ``benchmarks/memory.py``."""
    return load_benchmark("memory")


@pytest.fixture(scope="session")
def small(planner, memory):
    """The anatomies of the benchmarks' small models, by name, each read once."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = planner.read_config(memory.MODELS[name])
        return known[name]

    return read
