"""Tables of described columns in a terminal: by unit, within 80 columns, with their meanings."""

import io

import pytest
from rich.console import Console

from loratlas.analysis.columns import Column, table
from loratlas.analysis.founding import founding_tables
from loratlas.analysis.resources import PHASES, resource_tables
from loratlas.report.described import described_notes, described_tables

LONG = "a placement with a long name"


def drawn(renderable, width):
    file = io.StringIO()
    Console(width=width, file=file).print(renderable)
    return file.getvalue()


def one(value, unit):
    columns = [
        Column(name="placement", unit="text", meaning="its name", of=lambda _: "x"),
        Column(name="what it is", unit=unit, meaning="as it says", of=lambda _: value),
    ]
    return {"tables": [table("title", columns, [{}])]}


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "nats", "-"),
        (3.0888, "nats", "3.0888"),
        (12.698, "percent", "12.70%"),
        (1.0956, "factor", "1.10x"),
        (0.4063, "ratio", "0.406"),
        (6_291_456, "count", "6,291,456"),
        (354_823_168, "count", "354.8 M"),
        (69_525.8, "count_rate", "69,526"),
        (90.4909, "seconds", "90.5 s"),
        (4523.4, "seconds", "4,523 s"),
        (0.0512, "seconds", "51.2 ms"),
        (2_104_832, "bytes", "2,055.5 KiB"),
        (300 * 2**20, "bytes", "300.0 MiB"),
        (3 * 2**30, "bytes", "3.0 GiB"),
        (10_900_000_000, "flops", "10.9 G"),
        ("[red]why[/red]", "text", "[red]why[/red]"),
    ],
)
def test_values_are_shown_by_their_unit(value, unit, shown):
    (found,) = described_tables(one(value, unit))
    (line,) = [line for line in drawn(found, 80).splitlines() if line.startswith(" x ")]
    assert line.removeprefix(" x ").strip() == shown


def test_each_meaning_is_told_once():
    twice = {"tables": one(1, "count")["tables"] * 2}
    assert described_notes(twice) == ["what it is: as it says."]


def results():
    phases = {
        phase: {"before_bytes": 1, "peak_bytes": 987 * 2**20, "reserved_bytes": 14 * 2**30}
        for phase in PHASES
    }
    families = {"attention": 2_359_296, "feed_forward": 3_932_160, "head": 1_000_000}
    found = {
        "loss": 3.0888, "losses": {"0": 3.0888}, "perplexity": 8_176.26,
        "trainable_parameters": 7_291_456, "families": families, "seconds": 12_345.6,
        "peak_memory_bytes": 987 * 2**20, "percent_saved_against_full_fine_tuning": 98.26,
        "percent_saved_against_baseline": -12.34,
        "resources": {
            "adapter_bytes": {"planned": 9 * 2**20, "on_disk": 9 * 2**20 + 9000},
            "step_seconds": {
                "median": 0.9071, "lower_quartile": 0.9, "upper_quartile": 0.95, "least": 0.8,
                "most": 1.0, "num_steps": 6,
            },
            "memory": phases,
            "flops": {
                "counted": 123.4e12, "planned": 123.4e12, "planned_over_counted": 1.0,
                "num_tokens": 2048, "unknown": "ValueError: no plain form",
            },
            "roles": [{
                "role": "cross_attention", "parameters": 7_291_456,
                "flops_per_parameter_and_token": 1234.56, "bytes_per_parameter": 1165.92,
                "seconds_per_parameter_and_token": 4.9e-9,
            }],
        },
    }  # fmt: skip
    return {"placements": {"full": found, LONG: found}}


@pytest.mark.parametrize("kind", ["founding", "resources"])
def test_nothing_is_cut_in_a_terminal_of_80_columns(kind):
    found = (
        resource_tables(results())
        if kind == "resources"
        else founding_tables(results(), baseline="full", base_parameters=354_823_168)
    )
    for each in described_tables(found):
        narrow, wide = drawn(each, 80), drawn(each, 300)
        assert "…" not in narrow
        assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 80
        figures = [word for word in wide.split() if any(letter.isdigit() for letter in word)]
        assert sorted(figures) == sorted(
            word for word in narrow.split() if any(letter.isdigit() for letter in word)
        )
