"""Memory by phase, against a block of known size."""

import sys

import pytest
import torch

from loratlas.train.gauge import Gauge, above_before

SIZE = 64 * 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="high-water marks are read from /proc")


@linux
def test_a_phase_is_charged_for_what_it_held_at_its_fullest():
    gauge = Gauge(torch.device("cpu"))
    with gauge.phase("large"):
        torch.ones(SIZE // 4)  # fp32, let go at once
    with gauge.phase("small"):
        torch.ones(16)
    large, small = (above_before(gauge.phases[name]) for name in ("large", "small"))
    assert 0.9 * SIZE < large < 1.3 * SIZE
    assert small < 0.1 * SIZE
    assert gauge.phases["large"]["reserved"] is None


@linux
def test_what_a_phase_keeps_is_there_before_the_next():
    gauge = Gauge(torch.device("cpu"))
    with gauge.phase("first"):
        kept = torch.ones(SIZE // 4)
    with gauge.phase("second"):
        kept += 1
    first, second = gauge.phases["first"], gauge.phases["second"]
    assert second["before"] - first["before"] > 0.9 * SIZE
    assert above_before(second) < 0.1 * SIZE


def test_a_phase_that_ends_with_an_error_leaves_no_figure():
    gauge = Gauge(torch.device("cpu"))
    with pytest.raises(ValueError, match="broken"), gauge.phase("one"):
        raise ValueError("broken")
    assert gauge.phases == {}


def test_what_cannot_be_read_is_not_known():
    assert above_before({"before": None, "peak": 3, "reserved": None}) is None
    assert above_before({"before": 3, "peak": None, "reserved": None}) is None
    assert above_before({"before": 5, "peak": 3, "reserved": None}) == 0


def test_on_a_gpu_the_figures_are_those_of_its_allocator(monkeypatch):
    """In this order: what is left over is given back before the marks are set anew."""
    done = []
    figures = {"memory_allocated": 5, "max_memory_allocated": 9, "max_memory_reserved": 12}
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", *figures):
        monkeypatch.setattr(
            torch.cuda, name, lambda name=name: done.append(name) or figures.get(name)
        )
    gauge = Gauge(torch.device("cuda"))
    with gauge.phase("train"):
        done.append("work")
    assert gauge.phases == {"train": {"before": 5, "peak": 9, "reserved": 12}}
    assert done == [
        "synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated", "work",
        "max_memory_allocated", "max_memory_reserved",
    ]  # fmt: skip
