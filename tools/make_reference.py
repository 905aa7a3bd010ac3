"""Which pages of docs/reference follow from the code, and are they up to date?

    python tools/make_reference.py            write the pages
    python tools/make_reference.py --check    write nothing; exit 1 when a page differs

Every sentence of these pages is a docstring, a help text or a description in the code: to
change a page, change the code and run this again. docs/reference/json.md is written by hand.
"""

import argparse
import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import loratlas
from loratlas import errors
from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement import expressions, grammar, lints, match, placement, resolve, rules
from loratlas.study import fields, sections, spec
from loratlas.study.learned_fields import HybridFields, PolicyFields
from reference_commands import commands_page
from reference_text import class_text, first_line, function_text, marked, rst, table

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_NOTE = "<!-- Made by tools/make_reference.py; change the code, not this file. -->"


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    makers = {
        "commands.md": commands_page,
        "study-file.md": study_file_page,
        "rules.md": rules_page,
        "errors.md": errors_page,
        "python.md": python_page,
    }
    return {name: _page(make()) for name, make in makers.items()}


def outdated(folder: Path = FOLDER) -> list[str]:
    """Return the names of pages that are missing or differ from what the code says."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


_SECTIONS: Mapping[type[BaseModel], str] = {
    fields.StudyFields: "the keys at the top",
    sections.ModelFields: "model",
    sections.DataFields: "data",
    sections.FileFields: "data source files",
    fields.RuleFields: "a placement with a rule",
    fields.PartsFields: "a placement with parts",
    fields.PartFields: "one part",
    HybridFields: "a placement that scores choose",
    PolicyFields: "a placement that moves",
    sections.LoraFields: "lora",
    sections.TrainingFields: "training",
    sections.TaskFields: "a measure of a task",
    sections.ForgettingFields: "a measure of forgetting",
}


def study_file_page() -> Iterator[str]:
    """Yield every key of a study file, section by section."""
    schema = fields.StudyFields.model_json_schema()
    yield "# The study file"
    yield (
        "YAML 1.2, one mapping, UTF-8. Unknown keys are refused, and text is never taken for a "
        "number. A rule that holds a comma is quoted. Relative paths start from the folder of "
        "the study file and stay in it. `loratlas schema --out FILE` writes the JSON Schema of "
        "this page, with which an editor completes and checks."
    )
    for section, title in _SECTIONS.items():
        yield f"## {title}"
        yield marked(section.__doc__)
        yield _section(section, schema["$defs"].get(section.__name__, schema))


def _section(section: type[BaseModel], schema: Mapping[str, Any]) -> str:
    rows = []
    for key, node in schema["properties"].items():
        described = marked(section.model_fields[key].description)
        rows.append((f"`{key}`", _allowed(node), _default(key, node, schema), described))
    return table(("key", "allowed", "default", "what it says"), rows)


def _default(key: str, node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if key in schema.get("required", ()):
        return "needed"
    value = node.get("default")
    if isinstance(value, dict):
        return "as below" if value else "`{}`"
    if value is None:
        return "`null`" if {"type": "null"} in node.get("anyOf", ()) else "left out"
    return f"`{str(value).lower() if isinstance(value, bool) else _plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(node: Mapping[str, Any]) -> str:
    """Return a JSON Schema node in words."""
    several = node.get("anyOf") or node.get("oneOf")
    if several:
        return " or ".join(_allowed(item) for item in several)
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        title = next(title for kind, title in _SECTIONS.items() if kind.__name__ == name)
        return f"a mapping: [{title}](#{title.replace(' ', '-')})"
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        return f"a list of: {_allowed(node['items'])}"
    if node["type"] == "object":
        return f"a mapping from names to: {_allowed(node['additionalProperties'])}"
    percent = "a percentage" if "%" in node.get("pattern", "") else "text"
    words = {"string": percent, "integer": "integer", "number": "number", "null": "`null`"}
    return words.get(node["type"], "`true`, `false`") + _bounds(node)


def _bounds(node: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    # The largest allowed value of most numbers is a guard, not something a person meets.
    said = [
        f"{sign} {node[key]:g}" for key, sign in signs.items() if -1e6 < node.get(key, 1e9) < 1e6
    ]
    return f" {', '.join(said)}" if said else ""


FORMS = {
    "names(c_attn, attn.c_proj)": "the sites whose path ends in one of these names",
    "names(h.*.mlp.c_*)": "a glob, matched segment by segment",
    "file(placement.json)": "the sites of a saved placement (`place --json`), with its ranks",
    "attention @ layers(0, 3, 8..11)": "layers by index; `..` includes both ends",
    "attention @ layers(8..)": "layers from 8 on",
    "attention @ layers(-2..)": "the last two layers: a negative index counts from the end",
    "attention @ layers(25%..75%)": "layer i of L when 25 ≤ 100 · i / L < 75",
    "attention @ first(4)": "the first four layers; `last(4)` the last four",
    "attention @ every(2)": "layers 0, 2, 4, ...",
    "attention @ encoder": "the encoder; `decoder` the decoder",
    "all @ encoder @ first(2)": "several scopes narrow together, in any order",
    "attention | feed_forward.down": "the sites of either",
    "all - attention": "the first without the second",
    "attention & names(c_attn)": "the sites of both",
    "attention:16 + feed_forward": "parts, each with its own rank or the default; no overlap",
}
"""A sentence of each form, and its meaning."""


def rules_page() -> Iterator[str]:
    """Yield the language of rules: grammar, words, parts, scopes, warnings."""
    yield "# The language of rules"
    yield rst(rules.__doc__)
    yield "## Words"
    yield (
        "`all` is every site inside the blocks except routers and embeddings; `router`, "
        "`embedding` and `head` are named when wanted. The other words are sets of role families:"
    )
    words = [
        (f"`{word}`", ", ".join(f"`{family}`" for family in sorted(families)))
        for word, families in expressions.WORDS.items()
    ]
    yield table(("word", "role families"), words)
    yield "## Parts of a word"
    yield "A part narrows a word: `attention.q`. A model that fuses parts has the fused one only."
    parts = [
        (f"`{word}`", ", ".join(f"`.{part}`" for part in allowed))
        for word, allowed in expressions.PARTS.items()
    ]
    free = [(f"`{word}`", "any name") for word in sorted(expressions.FREE_PARTS)]
    yield table(("word", "its parts"), [*parts, *free])
    yield "## Names and layers"
    yield rst(resolve.__doc__, skip=1)
    yield "## What each form means"
    forms = [(f"`{form}`", meaning) for form, meaning in FORMS.items()]
    yield table(("form", "what it selects"), forms)
    yield "## Warnings"
    yield f"{rst(lints.__doc__, skip=1)} `loratlas place` and `loratlas plan` print them."
    yield table(("code", "what was found"), sorted(_lint_codes("*lints.py")))
    pitfalls = sorted(set(_lint_codes("*pitfalls.py")))
    if pitfalls:
        yield "## Findings about a PEFT configuration"
        yield table(("code", "what was found"), pitfalls)
    yield "## The grammar that is parsed"
    yield f"```text\n{grammar._GRAMMAR.strip()}\n```"


def _lint_codes(files: str) -> Iterator[tuple[str, str]]:
    """Yield the code of every lint, and the docstring of the function that finds it."""
    for path in sorted(Path(lints.__file__).parent.glob(files)):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for call in ast.walk(node):
                if isinstance(call, ast.keyword) and call.arg == "code":
                    yield f"`{ast.literal_eval(call.value)}`", marked(ast.get_docstring(node))


def errors_page() -> Iterator[str]:
    """Yield the tree of errors and what each of them means."""
    yield "# Errors and exit codes"
    yield (
        "A command exits 0, 1 when the work failed, or 2 when the request was wrong; then one "
        "message stands on stderr, which says what was given, what is allowed, and the nearest "
        "name. A study file with several faults gets one line for each."
    )
    yield rst(errors.__doc__)
    kinds: list[type[errors.LoratlasError]] = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.LoratlasError)
    ]
    kinds.sort(key=lambda kind: inspect.getsourcelines(kind)[1])
    rows = [(f"`{kind.__name__}`", str(kind.exit_code), first_line(kind)) for kind in kinds]
    yield table(("error", "exit code", "what it means"), rows)


_DATA_CLASSES: tuple[type, ...] = (
    Anatomy,
    Site,
    placement.Placement,
    placement.Adapter,
    placement.PlacementDiff,
    placement.LoraSpec,
    match.Match,
    lints.Lint,
)


def python_page() -> Iterator[str]:
    """Yield the functions and classes that a person's own script uses."""
    yield "# Python"
    yield rst(loratlas.__doc__)
    for name in loratlas.__all__:
        yield from function_text(f"loratlas.{name}", getattr(loratlas, name))
    for kind in _DATA_CLASSES:
        yield from class_text(kind)
    for function in (rules.parse, match.match_parameters, lints.lints, spec.load_study):
        yield from function_text(f"{function.__module__}.{function.__name__}", function)


def _page(blocks: Iterable[str]) -> str:
    title, *rest = (block for block in blocks if block)
    return "\n\n".join([title, _NOTE, *rest]) + "\n"


def run(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write the pages, or only look; return the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    check = parser.parse_args(arguments).check
    names = outdated(folder)
    for name in names:
        print(f"{name}: {'is out of date; run tools/make_reference.py' if check else 'written'}")
    if check:
        return 1 if names else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(pages()[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run())
