"""What a person names, and what of it becomes the name of a file."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loratlas.errors import StudyError
from loratlas.measure.task_index import find_task
from loratlas.study.trials import adapter_name

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def name_of(placement):
    cell = SimpleNamespace(placement=SimpleNamespace(name=placement), learning_rate=1e-3, seed=3)
    return adapter_name(cell, SimpleNamespace(digest="0123456789abcdef"))


@given(st.text(min_size=1))
def test_the_folder_of_an_adapter_has_a_safe_name(placement):
    name = name_of(placement)
    assert SAFE.fullmatch(name)
    assert len(name) < 255


@pytest.mark.parametrize(
    ("placement", "name"),
    [
        ("feed_forward-2.v", "feed_forward-2.v"),
        ("../../etc", "placement.._.._etc"),
        ("-rf", "placement-rf"),
        ("</script>", "placement__script_"),
        ("größe", "gr__e"),
        ("x" * 300, "x" * 160),
    ],
)
def test_the_name_of_a_placement_stays_readable(placement, name):
    assert name_of(placement) == f"{name}-lr0.001-seed3-01234567"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "gsm8k/../../x", "x\x1b[2J"])
def test_a_task_is_looked_up_and_never_a_path(name):
    with pytest.raises(StudyError, match="lm_eval knows no such task"):
        find_task(name)
