"""What a module may load: planning never loads torch, `--help` loads next to nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import loratlas

SOURCE = Path(loratlas.__file__).parent
LIGHT = ("placement", "cost", "allocate", "analysis", "report")


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", LIGHT)
def test_describing_planning_and_analysing_load_no_torch(package):
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for path in sorted((SOURCE / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert modules
    assert not loaded_by("\n".join(f"import {module}" for module in modules)) & {
        "torch",
        "transformers",
        "peft",
    }


def test_a_study_with_learned_placements_is_read_and_resolved_without_torch(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: x\nmodel: demo:gpt2\ndata: {source: demo:facts, format: prompt_completion}\n"
        "placements: {full: all, scored: {scorer: gradient}, moving: {policy: saliency}}\n"
    )
    code = (
        "from pathlib import Path\n"
        "from loratlas.anatomy.read import read\n"
        "from loratlas.study.resolve import resolve_study\n"
        "from loratlas.study.spec import load_study\n"
        f"study = load_study(Path({str(study)!r}))\n"
    )
    # Another process reads the anatomy first: reading it anew takes torch, the cache does not.
    loaded_by(f"{code}read(study.model.name)")
    assert "torch" not in loaded_by(f"{code}resolve_study(study, read(study.model.name))")


def test_the_package_itself_loads_nothing_heavy():
    heavy = {"torch", "transformers", "peft", "numpy", "pydantic", "lark", "sqlalchemy", "typer"}
    assert not loaded_by("import loratlas") & heavy


def test_the_command_line_loads_its_verbs_only_when_called():
    heavy = {"torch", "transformers", "peft", "numpy", "pydantic", "lark", "sqlalchemy", "scipy"}
    assert not loaded_by("import loratlas.cli.main") & heavy


def test_public_names_are_there():
    assert {name for name in loratlas.__all__ if not callable(getattr(loratlas, name))} == set()
    with pytest.raises(AttributeError, match="module 'loratlas' has no attribute 'raed'"):
        loratlas.raed  # noqa: B018
