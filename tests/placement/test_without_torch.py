"""Describing a placement loads no torch, and reading the language's module loads no lark."""

import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def modules_after(code: str) -> set[str]:
    script = f"import sys; sys.path.insert(0, {str(_TESTS)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_placing_a_rule_loads_no_torch():
    loaded = modules_after(
        "import anatomies, loratlas.cost.parameters, loratlas.placement.peft_config\n"
        "from loratlas.placement.lints import lints\n"
        "from loratlas.placement.match import match_parameters\n"
        "from loratlas.placement.placement import LoraSpec, place\n"
        "from loratlas.placement.rules import parse\n"
        "anatomy = anatomies.gpt2()\n"
        "rule = parse('attention:16 + names(mlp.c_fc)')\n"
        "placed = place(anatomy, rule)\n"
        "lints(rule, placed, anatomy)\n"
        "match_parameters(rule, anatomy, 10**6, lora=LoraSpec())\n"
    )
    assert "lark" in loaded
    assert not {"torch", "transformers", "peft"} & loaded


def test_importing_the_language_loads_no_lark():
    assert "lark" not in modules_after("import loratlas.placement.rules, loratlas.placement.lints")
