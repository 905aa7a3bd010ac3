"""What does a study file ask for that one key alone cannot show to be wrong?

These checks read the plain data, so that their findings are reported together with those about
single values. They pass over a value of the wrong type: that is said elsewhere.
"""

import copy
import unicodedata
from collections.abc import Iterator
from typing import Any

from loratlas.errors import StudyError, did_you_mean
from loratlas.measure.measures import FORGETTING
from loratlas.study import fields
from loratlas.study.document import Document, Location, dotted
from loratlas.study.hypothesis import parse_hypothesis
from loratlas.study.learned_fields import HybridFields, PolicyFields
from loratlas.study.problems import Problem

MAX_NAME = 64
_LATER_KEYS = {
    "search": "a search over placements is not yet served by this version",
}
_RULE_KEYS = {
    key
    for form in (
        fields.RuleFields,
        fields.PartsFields,
        HybridFields,
        PolicyFields,
    )
    for key in form.model_fields
}
_STAND_IN = "all"
"""Takes the place of a placement whose fault is already said."""


def check_version(document: Document) -> None:
    """Refuse a file of a later format at once: nothing else about it can be judged.

    Raises:
        StudyError: the version is above the one that is read here.
    """
    version = document.data.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > fields.VERSION:
        raise StudyError(
            f"{document.path}:{document.line(('version',))}: version: {version} is newer than "
            f"this loratlas reads ({fields.VERSION}); update loratlas"
        )


def set_aside(document: Document) -> tuple[dict[str, Any], list[Problem]]:
    """Split off what needs a sentence of its own: later features and rules without quotes.

    Returns:
        The data without them, and a problem for each.
    """
    data = copy.deepcopy(document.data)
    problems = []
    for key, text in _LATER_KEYS.items():
        if data.pop(key, None) is not None:
            problems.append(_problem(document, (key,), text, not_yet=True))
    placements = data.get("placements")
    if isinstance(placements, dict):
        problems += _torn_rules(document, placements)
    return data, problems


def relations(document: Document) -> Iterator[Problem]:
    """Yield what is wrong between keys: names, the baseline, the number of seeds."""
    placements = document.data.get("placements")
    if isinstance(placements, dict):
        yield from _names(document, list(placements))
        yield from _baseline(document, list(placements))
        yield from _hypotheses(document, list(placements))
        yield from _learned(document, placements)
    yield from _sweep_seeds(document)
    yield from _trust(document)
    yield from _forgetting(document)


def _problem(
    document: Document, location: Location, text: str, *, not_yet: bool = False
) -> Problem:
    line = document.line(location)
    return Problem(line=line, key=dotted(location), text=text, not_yet=not_yet)


def _torn_rules(document: Document, placements: dict[str, Any]) -> Iterator[Problem]:
    """Find rules that YAML tore at their commas, which leaves keys without a value."""
    before = None
    for name, form in list(placements.items()):
        here = ("placements", name)
        if form is None and before is not None and _is_open(placements[before]):
            yield _quote(document, here, [str(placements[before]), name])
            placements[before] = _STAND_IN
            del placements[name]
            continue
        before = name
        torn = list(_torn_in(document, here, form))
        if torn:
            yield from torn
            placements[name] = _STAND_IN


def _torn_in(document: Document, location: Location, form: Any) -> Iterator[Problem]:
    if not isinstance(form, dict):
        return
    pieces = [key for key, value in form.items() if value is None and key not in _RULE_KEYS]
    if pieces and isinstance(form.get("rule"), str):
        yield _quote(document, (*location, pieces[0]), [form["rule"], *pieces])
    parts = form.get("parts")
    for i, part in enumerate(parts if isinstance(parts, list) else []):
        yield from _torn_in(document, (*location, "parts", i), part)


def _is_open(rule: Any) -> bool:
    return isinstance(rule, str) and rule.count("(") > rule.count(")")


def _quote(document: Document, location: Location, pieces: list[str]) -> Problem:
    whole = ", ".join(pieces)
    shown = whole if whole.isprintable() and len(whole) < 200 else "..."
    text = f'this key has no value; quote this rule, because it holds a comma: "{shown}"'
    return _problem(document, location, text)


def _names(document: Document, names: list[str]) -> Iterator[Problem]:
    """Yield names that cannot be printed, and names that a file system would take for one."""
    seen: dict[str, str] = {}
    for name in names:
        here = ("placements", name)
        if not name.isprintable() or name != name.strip() or len(name) > MAX_NAME:
            text = (
                f"the name of a placement is 1 to {MAX_NAME} characters that can be printed, "
                "without a space at either end"
            )
            yield _problem(document, here, text)
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded in seen:
            line = document.line(("placements", seen[folded]))
            text = f"is {seen[folded]} on line {line} in another case; choose another name"
            yield _problem(document, here, text)
        seen.setdefault(folded, name)


def _baseline(document: Document, names: list[str]) -> Iterator[Problem]:
    baseline = document.data.get("baseline")
    if isinstance(baseline, str) and names and baseline not in names:
        shown = document.shown(("baseline",))
        text = (
            f"{shown} is not one of the placements{did_you_mean(baseline, names)}; "
            f"allowed: {', '.join(names[:10])}"
        )
        yield _problem(document, ("baseline",), text)


def _learned(document: Document, placements: dict[str, Any]) -> Iterator[Problem]:
    """Yield a baseline whose parameters are not known beforehand, and a policy without engine."""
    baseline = document.data.get("baseline") or next(iter(placements), None)
    for name, form in placements.items():
        learned = [key for key in ("scorer", "policy") if isinstance(form, dict) and key in form]
        if learned and name == baseline:
            text = "the baseline is a rule: the others are matched to its parameters"
            yield _problem(document, ("placements", name), text)
        if "policy" in learned and document.data.get("engine") == "reference":
            text = "a placement that moves needs the packed engine; leave out `engine: reference`"
            yield _problem(document, ("placements", name, "policy"), text)


def _hypotheses(document: Document, names: list[str]) -> Iterator[Problem]:
    """Yield claims that cannot be read, or that are about no placement of the study."""
    given = document.data.get("hypothesis")
    for name, text in given.items() if isinstance(given, dict) else ():
        here = ("hypothesis", name)
        if name not in names:
            said = f"{name} is not one of the placements{did_you_mean(name, names)}; "
            yield _problem(document, here, f"{said}allowed: {', '.join(names[:10])}")
        elif isinstance(text, str):
            try:
                parse_hypothesis(text, name, names)
            except StudyError as error:
                yield _problem(document, here, str(error))


def _sweep_seeds(document: Document) -> Iterator[Problem]:
    seeds, sweep = document.data.get("seeds", fields.NUM_SEEDS), document.data.get("sweep_seeds")
    num_seeds = len(seeds) if isinstance(seeds, list) else seeds
    if type(num_seeds) is int and type(sweep) is int and sweep > num_seeds >= 1:
        text = f"{sweep} is more than the seeds of the study; allowed: 1 to {num_seeds}"
        yield _problem(document, ("sweep_seeds",), text)


def _trust(document: Document) -> Iterator[Problem]:
    model, outside = document.data.get("model"), document.data.get("trust_remote_code")
    inside = model.get("trust_remote_code") if isinstance(model, dict) else None
    if isinstance(inside, bool) and isinstance(outside, bool) and inside != outside:
        line = document.line(("model", "trust_remote_code"))
        text = f"contradicts model.trust_remote_code on line {line}; give it once"
        yield _problem(document, ("trust_remote_code",), text)


def _forgetting(document: Document) -> Iterator[Problem]:
    """Yield a forgetting without a text: only bundled models have one of their own."""
    model, given = document.data.get("model"), document.data.get("measures")
    name = model.get("name") if isinstance(model, dict) else model
    if not isinstance(given, list) or not isinstance(name, str) or name.startswith("demo:"):
        return
    for i, measure in enumerate(given):
        options = measure if isinstance(measure, dict) else {"task": measure}
        if options.get("task") == FORGETTING and "source" not in options:
            text = (
                "needs a general text for a model that is not bundled: "
                f"{{task: {FORGETTING}, source: FILE}}"
            )
            yield _problem(document, ("measures", i), text)
