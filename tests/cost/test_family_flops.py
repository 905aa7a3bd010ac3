"""Planned operations of every golden family: PyTorch's count, or a reason why none is known."""

import importlib.util
import sys
from pathlib import Path

import pytest

from loratlas.cost.plan import Estimator
from loratlas.cost.setting import Workload
from loratlas.errors import PlacementError
from loratlas.placement.placement import place

RULES = (
    "all",
    "attention",
    "feed_forward",
    "all @ last(1)",
    "attention @ last(1)",
    "feed_forward @ first(1)",
)
_TOOL = Path(__file__).parents[2] / "tools" / "make_families.py"


def _families():
    spec = importlib.util.spec_from_file_location("make_families_tool", _TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FAMILIES = _families()


def _cases(planner, family):
    anatomy = FAMILIES.read_family(family)
    config = {"architectures": [anatomy.architecture], **FAMILIES.configuration(family)}
    if family == "t5":
        config["decoder_start_token_id"] = 0
    both = set(anatomy.stacks) >= {"encoder", "decoder"}
    workload = Workload.alike(2, 24, decoder_tokens=12 if both else None)
    for rule in RULES:
        try:
            placement = place(anatomy, rule, rank=4, alpha=8)
        except PlacementError:
            continue  # the family has no such block
        yield planner.Case(anatomy=anatomy, config=config, placement=placement, workload=workload)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES.FAMILIES))
def test_operations_are_pytorchs_or_not_known(planner, family):
    cases = list(_cases(planner, family))
    assert cases
    for case in cases:
        cost = Estimator(case.anatomy, case.setting()).cost(case.placement)
        if cost.flops is None:
            assert cost.unknown
            continue
        # Whole numbers on both sides; the same products are counted, so they are equal.
        assert (cost.flops.forward, cost.flops.backward) == planner.counted_flops(case)


@pytest.mark.slow
def test_how_many_families_are_known(planner):
    known = [
        family
        for family in FAMILIES.FAMILIES
        if all(
            Estimator(case.anatomy, case.setting()).cost(case.placement).flops is not None
            for case in _cases(planner, family)
        )
    ]
    assert len(known) >= 43, f"known: {', '.join(sorted(known))}"
