import io

from rich.console import Console

from loratlas.anatomy.read import read
from loratlas.placement.placement import place
from loratlas.report.sites import layer_ranges, placement_summary, placement_table, role_table
from loratlas.report.tables import notes, results_tables


def drawn(renderable, width=200) -> str:
    file = io.StringIO()
    Console(width=width, file=file).print(renderable)
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
        "macro_f1": None,
        "loss_interval": [1.2, 1.3],
        "loss_interval_over": "new seeds and new examples",
        "seconds": 7.68,
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
        "p_adjusted": 0.012,
        "verdict": "better",
        "says": "b is better than a (difference -0.0123 nats per token).",
        "num_seeds": 3,
    }


def results(**arms):
    return {
        "study": "x",
        "split": "test",
        "base": {
            "loss": 4.0,
            "perplexity": 54.6,
            "macro_f1": None,
            "tasks": {},
            "forgetting": None,
        },
        "placements": arms,
        "contrasts": [contrast(-0.0123, [-0.02, -0.0046])] if "b" in arms else [],
        "num_trials": 6,
        "engines": {"packed": 6, "reference": 0, "reasons": []},
        "claims": [],
        "sweeps": {},
    }


def line(text, name):
    return next(line for line in text.splitlines() if name in line)


def tables(found) -> list[str]:
    return [drawn(table) for table in results_tables(found)]


def test_the_table_of_losses():
    text = tables(results(a=arm(), b=arm(loss=1.2222)))[0]
    assert "4.0000" in line(text, "untuned base")
    first, second = line(text, " a  "), line(text, " b  ")
    for cell in ("122,880", "1.2346 ± 0.0500", "3.44"):
        assert cell in first
    assert "1.2222 ± 0.0500" in second


def test_the_table_of_verdicts():
    losses, verdicts, *_ = tables(results(a=arm(), b=arm(loss=1.2222)))
    assert "better" not in losses
    for cell in ("-0.0123", "-0.0200 to -0.0046", "0.012", "better"):
        assert cell in line(verdicts, " b  ")
    assert "against a" in verdicts


def test_conclusions_come_first_among_the_notes():
    found = results(a=arm(), b=arm())
    found["claims"] = [{"says": "b: 'at least 95% of a' is supported."}]
    found["sweeps"] = {"b": {"says": ["b: the best learning rate, 0.01, is the highest."]}}
    assert notes(found)[:3] == [
        "b is better than a (difference -0.0123 nats per token).",
        "Claim: b: 'at least 95% of a' is supported.",
        "b: the best learning rate, 0.01, is the highest.",
    ]


def test_why_some_trials_did_not_train_together():
    def said(packed, reference, *reasons):
        found = results(a=arm())
        found["engines"] = {
            "packed": packed,
            "reference": reference,
            "reasons": [{"reason": reason, "num_trials": count} for reason, count in reasons],
        }
        return [line for line in notes(found) if "engine" in line]

    assert said(6, 0) == said(0, 6, ("the base's own dropout is active", 6)) == []
    assert said(4, 3, ("wte is no plain linear map", 2), ("odd is none", 1)) == [
        "3 of 7 trials were trained one after another by the reference engine: wte is no plain "
        "linear map (2); odd is none (1). The others trained together in packs; losses agree "
        "between the engines up to rounding."
    ]
    assert said(4, 3)[0].startswith(
        "3 of 7 trials were trained one after another by the reference engine. The others"
    )


def test_the_tables_of_what_was_adapted_and_what_it_costs():
    _, adapted, cost = tables(results(a=arm()))
    for cell in ("24", "8", "122,880", "5.68%", "94.32%", "0.00%"):
        assert cell in line(adapted, " a  ")
    for cell in ("0.003", "3", "51.2", "7,654", "7.7", "300 MiB"):
        assert cell in line(cost, " a  ")


def test_what_is_unknown_is_a_dash():
    empty = arm(
        learning_rate=None, loss=None, perplexity=None, loss_interval=None, seconds_per_step=None,
        tokens_per_second=None, peak_memory_bytes=None, num_trials=0, seconds=None,
    )  # fmt: skip
    losses, _, cost = tables(results(a=empty))
    for text in (losses, cost):
        assert "None" not in text
        assert "nan" not in text
        assert " - " in line(text, " a  ")


def words(text) -> list[str]:
    return [word for word in text.split() if not word.startswith("─")]


def test_nothing_is_cut_in_a_terminal_of_80_columns():
    name = "a placement with a long name"
    for table in results_tables(results(**{name: arm(), "b": arm(ranks=[4, 16])})):
        text = drawn(table, width=80)
        assert "…" not in text
        # A long name is folded into several lines, so words come in another order.
        assert sorted(words(text)) == sorted(words(drawn(table, width=300))), "a word was cut"
        assert max(len(row.rstrip()) for row in text.splitlines()) <= 80


def test_failures_are_counted_beside_the_mean():
    found = results(a=arm(num_failed=1))
    assert "2 of 3" in line(tables(found)[2], " a  ")
    assert "a: 1 of 3 trials diverged or failed; its mean is over the others." in notes(found)


def test_names_with_markup_are_shown_as_they_are():
    text = tables(results(**{"[red]x[/red]": arm()}))[0]
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
