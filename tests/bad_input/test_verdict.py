"""Does the verdict on a case see what must not happen?"""

from dataclasses import replace

import pytest

from bad_input.case import Case
from bad_input.verdict import Outcome, faults, message

CASE = Case(name="a layer", asked=("place",), says="layer 9 is not there...0..2")
HELD = Outcome(
    code=2,
    out="",
    err="reading model\nloratlas: layer 9 is not there: the decoder has 3\nlayers, 0..2\n",
    before={"a": "1"},
    after={"a": "1"},
)
WELL = Case(name="x", asked=("place", "--json"), says="done", code=0, why="it may be")
DONE = Outcome(code=0, out='{"state": "done"}', err="", before={}, after={})


def test_what_holds():
    assert faults(CASE, HELD) == []
    assert faults(WELL, DONE) == []
    left = replace(HELD, after={"a": "1", "out/run.lock": "2"})
    assert faults(replace(CASE, leaves=("out/*",)), left) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"code": None}, "still running after 180 s"),
        ({"code": 1}, "exit 1 in place of 2"),
        ({"code": -9}, "exit -9 in place of 2"),
        ({"err": ""}, "0 messages in place of 1"),
        ({"err": HELD.err + "loratlas: and more\n"}, "2 messages in place of 1"),
        ({"err": "Traceback (most recent call last):\n" + HELD.err}, "a traceback"),
        ({"err": HELD.err.replace("layer 9", "layer 8")}, f"does not say {CASE.says!r}"),
        ({"err": HELD.err.replace("9", "9\x1b[31m")}, r"the terminal gets ['\x1b']"),
        ({"out": "half a table"}, "something on stdout"),
        ({"after": {}}, "changed or left over: a"),
        ({"after": {"a": "2"}}, "changed or left over: a"),
        ({"after": {"a": "1", "out": "folder"}}, "changed or left over: out"),
    ],
)
def test_what_does_not_hold(changes, fault):
    assert fault in faults(CASE, replace(HELD, **changes))


def test_a_success_prints_json_alone():
    assert "stdout is no JSON: NaN is no JSON" in faults(WELL, replace(DONE, out='["done", NaN]'))
    assert "1 messages in place of 0" in faults(WELL, replace(DONE, err="loratlas: done\n"))


def test_the_box_of_the_parser_is_read_as_one_line():
    box = "Usage: loratlas [OPTIONS]\n╭─ Error ───╮\n│ No such    │\n│ command.   │\n╰────╯\n"
    outcome = replace(HELD, err=box)
    assert message(outcome) == "No such command."
    assert faults(replace(CASE, usage=True, says="No such command"), outcome) == []
