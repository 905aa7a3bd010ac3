"""The page on other trainers: its code runs, in its order, and prints what it says."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own-trainer.md"
# TRL and transformers warn about their own settings; the page is not about those.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def sections():
    """Return the Python block of each section by its heading."""
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    blocks = zip(parts[::2], parts[1::2], strict=True)
    return {
        heading: "\n".join(re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
        for heading, body in blocks
    }


def run(headings, capsys):
    """Run the blocks of these sections as one program; return what each printed."""
    found, names, printed = sections(), {}, {}
    for heading in headings:
        exec(compile(found[heading], f"{PAGE.name}: {heading}", "exec"), names)
        printed[heading] = capsys.readouterr().out
    return printed


def test_placing_linting_and_a_loop_by_hand(capsys):
    printed = run(["Place", "Look through a configuration", "A loop written by hand"], capsys)
    stated = re.findall(r"# ([\d,]+)$", sections()["Place"], re.MULTILINE)
    assert printed["Place"].split() == stated
    told = printed["Look through a configuration"].splitlines()
    assert [line.split(":")[0] for line in told[:-1]] == [
        "dead-target",
        "ambiguous-name",
        "layer-out-of-range",
    ]
    assert told[-1] == "2"
    stated = re.findall(r"^# (dead-target: .*)$", PAGE.read_text(), re.MULTILINE)
    assert told[0] == stated[0]
    assert printed["A loop written by hand"].strip() == "True"


def test_the_trainer_of_transformers(capsys):
    run(["Place", "A loop written by hand", "The Trainer of transformers"], capsys)


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install '.[trl]'")
def test_the_trainer_of_trl_and_what_follows(capsys):
    printed = run(
        [
            "Place",
            "A loop written by hand",
            "The Trainer of transformers",
            "The SFTTrainer of TRL",
            "What a failed check says",
            "Save exactly",
        ],
        capsys,
    )
    assert "transformer.h.3.attn.c_attn is not adapted" in printed["What a failed check says"]
