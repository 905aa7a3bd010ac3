"""What the source and its requirements must not do, whatever the tests run."""

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

Trees = Mapping[str, Sequence[ast.AST]]

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "loratlas"

_UNPICKLES = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "numpy.load", "np.load",
    "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads",
    "shelve.open", "marshal.loads", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
_RUNS_TEXT = {"eval", "exec", "compile", "os.system", "os.popen"}
_SERVES = {"socketserver", "http.server", "xmlrpc.server", "uvicorn", "flask", "gradio", "aiohttp"}
_OF_OUR_OWN = {("study/workers/worker.py", "pickle.loads")}
"""Where what is unpickled was pickled by the same process, a line before."""


def calls(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes:
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Every node of every file."""
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    return {
        file.relative_to(SOURCE).as_posix(): list(ast.walk(ast.parse(file.read_text())))
        for file in files
    }


def callers(trees: Trees, names: set[str]) -> set[tuple[str, str]]:
    return {
        (file, name) for file, tree in trees.items() for name, _ in calls(tree) if name in names
    }


def test_nothing_unpickles_what_comes_from_outside(trees):
    assert callers(trees, _UNPICKLES) <= _OF_OUR_OWN
    allowed = [
        f"{file}: {ast.unparse(word)}"
        for file, tree in trees.items()
        for _, call in calls(tree)
        for word in call.keywords
        if word.arg in ("allow_pickle", "weights_only")
    ]
    assert allowed == []


def test_nothing_runs_text(trees):
    assert callers(trees, _RUNS_TEXT) == set()


def test_yaml_makes_plain_data(trees):
    """ruamel's other loaders make objects of any class; PyYAML's default one did."""
    loaders = {
        ast.unparse(word.value)
        for tree in trees.values()
        for name, call in calls(tree)
        for word in call.keywords
        if name == "YAML" and word.arg == "typ"
    }
    assert loaders == {"'safe'"}
    assert not any("yaml" in _imported(node) for tree in trees.values() for node in tree)


def test_no_shell_is_started(trees):
    found = [
        file
        for file, tree in trees.items()
        for _, call in calls(tree)
        if any(word.arg == "shell" for word in call.keywords)
    ]
    assert found == []


def test_code_of_a_model_runs_behind_one_gate(trees):
    """Where it may run, `True` is written in one file, behind the question for permission."""
    found = {
        file
        for file, tree in trees.items()
        for _, call in calls(tree)
        for word in call.keywords
        if word.arg == "trust_remote_code"
        and isinstance(word.value, ast.Constant)
        and word.value.value is not False
    }
    assert found == {"anatomy/build.py"}


def test_nothing_serves(trees):
    imported = {
        (file, name)
        for file, tree in trees.items()
        for node in tree
        for name in _imported(node)
        if any(name == server or name.startswith(f"{server}.") for server in _SERVES)
    }
    assert imported == set()


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


@pytest.mark.parametrize(
    ("package", "at_least", "because"),
    [
        ("torch", (2, 10), "torch.load(weights_only=True) before it could run code"),
        ("datasets", (4,), "before it, the script of a data set was run"),
    ],
)
def test_versions_that_would_break_a_promise_are_not_installed(package, at_least, because):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    [wanted] = [each for each in project["dependencies"] if each.startswith(f"{package}>=")]
    version = tuple(map(int, wanted.partition(">=")[2].split(".")))
    assert version >= at_least, because
