"""The scripts of ``benchmarks/`` as modules, so that tests use what the benchmarks use."""

import importlib.util
import sys
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load_benchmark(name):
    """Load a benchmark under its own name, by which the others import it."""
    spec = importlib.util.spec_from_file_location(name, _BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
