import io

from rich.console import Console

from loratlas.anatomy.read import read
from loratlas.placement.placement import place
from loratlas.report.sites import layer_ranges, placement_summary, placement_table, role_table
from loratlas.report.tables import cost_table, notes, results_table


def drawn(renderable) -> str:
    file = io.StringIO()
    Console(width=200, file=file).print(renderable)
    return file.getvalue()


def arm(**changes):
    values = {
        "rule": "all",
        "num_sites": 24,
        "ranks": [8],
        "trainable_parameters": 122_880,
        "percent_of_base_and_adapters": 5.68,
        "percent_saved_against_full_fine_tuning": 94.32,
        "percent_saved_against_baseline": 0.0,
        "learning_rate": 3e-3,
        "loss": 1.23456,
        "perplexity": 3.43689,
        "loss_interval": [1.2, 1.3],
        "seconds_per_step": 0.0512,
        "tokens_per_second": 7654.3,
        "peak_memory_bytes": 300 * 2**20,
        "num_trials": 3,
        "num_failed": 0,
    }
    return {**values, **changes}


def contrast(difference, interval):
    return {
        "placement": "b",
        "baseline": "a",
        "difference": difference,
        "interval": interval,
        "num_seeds": 3,
    }


def results(**arms):
    return {
        "study": "x",
        "split": "test",
        "base": {"loss": 4.0, "perplexity": 54.6},
        "placements": arms,
        "contrasts": [contrast(-0.0123, [-0.02, -0.0046])] if "b" in arms else [],
        "interval_over": "new seeds, these rows",
    }


def line(text, name):
    return next(line for line in text.splitlines() if name in line)


def test_the_results_table():
    text = drawn(results_table(results(a=arm(), b=arm(loss=1.2222))))
    assert "4.0000" in line(text, "untuned base")
    first, second = line(text, "│ a"), line(text, "│ b")
    for cell in (
        "122,880",
        "5.68%",
        "0.003",
        "1.2346",
        "[1.2000, 1.3000]",
        "3.44",
        "baseline",
        "3",
    ):
        assert cell in first
    assert "-0.0123 [-0.0200, -0.0046]" in second


def test_the_cost_table():
    first = line(drawn(cost_table(results(a=arm()))), "│ a")
    for cell in ("24", "8", "94.32%", "0.00%", "51.2", "7,654", "300 MiB"):
        assert cell in first


def test_what_is_unknown_is_a_dash():
    empty = arm(
        learning_rate=None, loss=None, perplexity=None, loss_interval=None, seconds_per_step=None,
        tokens_per_second=None, peak_memory_bytes=None, num_trials=0,
    )  # fmt: skip
    for table in (results_table(results(a=empty)), cost_table(results(a=empty))):
        text = drawn(table)
        assert "None" not in text
        assert "nan" not in text
        assert " - " in line(text, "│ a")


def test_failures_are_counted_beside_the_mean():
    found = results(a=arm(num_failed=1))
    assert "2 of 3" in line(drawn(results_table(found)), "│ a")
    assert "a: 1 of 3 trials diverged or failed; its mean is over the others." in notes(found)


def test_names_with_markup_are_shown_as_they_are():
    text = drawn(results_table(results(**{"[red]x[/red]": arm()})))
    assert "[red]x[/red]" in text


def test_layers_are_shown_as_ranges():
    assert layer_ranges([0, 1, 2, 5, 7, 8]) == "0..2, 5, 7..8"
    assert layer_ranges([None, 3]) == "3"
    assert layer_ranges([]) == ""


def test_sites_are_grouped_by_role():
    anatomy = read("demo:gpt2")
    text = drawn(role_table(anatomy.sites))
    assert "0..5" in line(text, "attention.qkv")
    placement = place(anatomy, "attention.o @ last(2):4")
    row = line(drawn(placement_table(placement)), "attention.o")
    assert "4..5" in row
    assert f"{placement.trainable_parameters:,}" in row
    assert "2 of 27 sites" in placement_summary(placement, anatomy)
