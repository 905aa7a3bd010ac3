"""Does every promise about security name tests that exist, and is every such test promised?"""

import ast
import re

import pytest

from .conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PROMISES, _, _REST = PAGE.read_text(encoding="utf-8").partition("## What is not promised")
PROMISES = re.findall(r"^- (.*?)(?=^- |^#|\Z)", _PROMISES, re.MULTILINE | re.DOTALL)


def functions_of(file: str) -> set[str]:
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_promises():
    assert len(PROMISES) > 25


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:50].split("*")[-1])
def test_every_promise_names_tests_that_exist(promise):
    named = NAMED.findall(promise)
    assert named
    assert [(file, test) for file, test in named if test not in functions_of(file)] == []


def test_every_test_of_security_holds_a_promise():
    named = {file for file, _ in NAMED.findall(_PROMISES)}
    folder = REPOSITORY / "tests" / "security"
    files = {f"tests/security/{file.name}" for file in folder.glob("test_*.py")}
    assert files
    assert files <= named
