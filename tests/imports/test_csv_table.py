"""A table of results as a run: the figures are those of the table, and what is wrong is said."""

from contextlib import closing

import numpy as np
import pytest

from loratlas.analysis.summary import results
from loratlas.errors import DataError, RunFolderError
from loratlas.imports.base import BaseModel
from loratlas.imports.run import import_run
from loratlas.study.folder import open_run

PER_TRIAL = """\
placement,seed,learning_rate,trainable_parameters,loss,tokens,status
base,,,,3.0,500,
full,0,1e-3,4000,2.00,500,done
full,1,1e-3,4000,2.10,500,
cheap,0,1e-3,1000,2.20,500,
cheap,1,1e-3,1000,,500,diverged
"""


@pytest.fixture
def table(tmp_path):
    """Imports a table; returns its results."""

    def call(text, **options):
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        call.told = import_run(tmp_path / "table.csv", tmp_path / "run", BaseModel(), **options)
        with closing(open_run(tmp_path / "run")) as store:
            return results(store)

    return call


@pytest.fixture
def refusal(tmp_path):
    def call(text, **options):
        file = tmp_path / "table.csv"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            import_run(file, tmp_path / "run", BaseModel(), **options)
        assert not (tmp_path / "run").exists()
        return str(caught.value).replace(f"{tmp_path}/", "")

    return call


def test_a_line_a_trial(table):
    found = table(PER_TRIAL)
    full, cheap = found["placements"]["full"], found["placements"]["cheap"]
    assert found["study"] == "table"
    assert found["base"]["loss"] == pytest.approx(3.0)
    assert full["loss"] == pytest.approx(2.05)
    assert full["losses"] == {"0": pytest.approx(2.0), "1": pytest.approx(2.1)}
    assert (cheap["num_trials"], cheap["num_failed"]) == (2, 1)
    assert (cheap["trainable_parameters"], cheap["learning_rate"]) == (1000, 1e-3)
    contrast = found["contrasts"][0]
    assert (contrast["placement"], contrast["baseline"]) == ("cheap", "full")
    assert contrast["difference"] == pytest.approx(0.2)
    assert (contrast["interval"], contrast["verdict"]) == (None, "cannot tell")
    assert "One example has no spread" in contrast["says"]
    assert table.told["notes"][0].startswith("One loss a trial: differences have no interval")


def test_what_the_table_does_not_say_is_null(table):
    found = table(PER_TRIAL)
    full = found["placements"]["full"]
    unknown = ("accuracy", "bits_per_byte", "seconds", "peak_memory_bytes", "num_sites",
               "percent_of_base_and_adapters")  # fmt: skip
    assert {key: full[key] for key in unknown} == dict.fromkeys(unknown)
    assert (full["ranks"], full["families"]) == ([], {})
    assert found["base"]["accuracy"] is None


def examples(shifts, tokens=4, correct="1"):
    """Return a table of 12 examples and 3 seeds; `shifts` is nats per token by placement."""
    chance = np.random.default_rng(0)
    lines = ["placement,seed,learning_rate,trainable_parameters,split,example,nll,tokens,correct"]
    for name, shift in shifts.items():
        for seed in range(3):
            for row in range(12):
                nll = tokens * (2 + 0.1 * (row % 5) + shift + chance.normal(0, 0.01))
                lines.append(f"{name},{seed},1e-3,{100},test,{row},{nll:.6f},{tokens},{correct}")
    for row in range(12):
        lines.append(f"base,,,,test,{row},{tokens * 3.0},{tokens},{correct}")
    return "\n".join(lines) + "\n"


def test_a_line_an_example_gives_intervals_and_verdicts(table):
    found = table(examples({"full": 0.0, "worse": 0.5}))
    contrast = found["contrasts"][0]
    assert contrast["verdict"] == "worse"
    assert contrast["difference"] == pytest.approx(0.5, abs=0.01)
    low, high = contrast["interval"]
    assert low <= 0.5 <= high < 0.6
    assert found["placements"]["full"]["accuracy"] == pytest.approx(1 / 4)


def test_the_baseline_is_the_first_or_the_one_that_is_named(table, refusal):
    assert refusal(PER_TRIAL, baseline="chaep") == (
        "--baseline chaep: there is no such placement (did you mean cheap?); there is: full, cheap"
    )
    assert table(PER_TRIAL, baseline="cheap")["contrasts"][0]["placement"] == "full"


def test_costs_alone_are_read(table):
    text = PER_TRIAL.replace("loss,tokens,status", "loss,seconds_per_step,tokens_per_second,"
                             "peak_memory_bytes")  # fmt: skip
    lines = [line.split(",")[:5] for line in text.splitlines()[1:]]
    body = [",".join([*line[:4], line[4] or "2.0", "0.5", "100", "2048"]) for line in lines]
    found = table("\n".join([text.splitlines()[0], *body]) + "\n")
    cheap = found["placements"]["cheap"]
    assert (cheap["seconds_per_step"], cheap["peak_memory_bytes"]) == (0.5, 2048)
    assert cheap["seconds"] is None  # how many steps a trial had is not known


def test_validation_rows_choose_between_rates(table, refusal):
    head = "placement,seed,learning_rate,trainable_parameters,split,loss\n"
    both = [
        "a,0,1e-3,10,test,2.5", "a,0,1e-3,10,validation,1.0",
        "a,0,1e-4,10,test,2.0", "a,0,1e-4,10,validation,1.5",
    ]  # fmt: skip
    assert refusal(head + "\n".join(both[::2]) + "\n") == (
        "a: learning rates 0.0001, 0.001: several need rows of the split validation, by which one "
        "is chosen; or give one"
    )
    found = table(head + "\n".join(both) + "\n")["placements"]["a"]
    assert (found["learning_rate"], found["loss"]) == (1e-3, pytest.approx(2.5))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("full,0,1e-3", "full,x,1e-3", "table.csv:3: seed: x is no whole number from 0 on"),
        ("full,0,1e-3", "full,-1,1e-3", "table.csv:3: seed: -1 is no whole number from 0 on"),
        ("full,0,1e-3", "full,0,0", "table.csv:3: learning_rate: 0 is not above 0"),
        ("2.00,500", "nan,500", "table.csv:3: loss: nan is no finite number; leave it empty, with "
         "the status diverged"),
        ("2.00,500", "two,500", "table.csv:3: loss: two is no number"),
        ("2.00,500", ",500", "table.csv:3: loss: nothing is no number"),
        ("full,0,1e-3", "full," + "9" * 30 + ",1e-3", "table.csv:3: seed: " + "9" * 30 + " is too "
         "large"),
        ("2.00,500", "2.00,0", "table.csv:3: tokens: 0 is no whole number from 1 on"),
        ("500,done", "500,fine", "table.csv:3: status: fine is none of done, diverged, failed"),
        ("full,0,1e-3,4000,2.00,500,done", "full,0", "table.csv:3: has not as many cells as the "
         "first line"),
        ("full,0,1e-3", ",0,1e-3", "table.csv:3: placement: is empty"),
        ("full,1,1e-3,4000", "full,1,1e-3,4001", "table.csv:4: trainable_parameters: 4,001 for "
         "full, and 4,000 on line 3"),
        ("full,1", "full,0", "table.csv:4: the same trial, split and example stand on line 3"),
        ("2.10,500", "2.10,400", "table.csv: trials scored different examples of the split test, "
         "or different numbers of tokens; losses compare over the same ones only"),
        ("status\n", "statsu\n", "table.csv: the column statsu is not read (did you mean status?); "
         "what may be there beside the needed ones: tokens, split, correct, status, rule, "
         "seconds_per_step, tokens_per_second, peak_memory_bytes"),
        ("seed,learning", "seeds,learning", "table.csv: expected the columns placement, seed, "
         "learning_rate, trainable_parameters and either loss, or example, nll, tokens; its "
         "columns are placement,seeds,learning_rate,trainable_parameters,lo..."),
        ("seed,", "placement,", "table.csv: the column placement stands twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(old, new, said, refusal):
    assert old in PER_TRIAL
    found = refusal(PER_TRIAL.replace(old, new, 1))
    assert found.replace(", ", ",") == said.replace(", ", ",")


def test_other_shapes(tmp_path, refusal):
    assert refusal("").startswith("table.csv: expected the columns placement, seed")
    assert refusal(PER_TRIAL.splitlines()[0] + "\n") == "table.csv: holds no line of a placement"
    for source, kind in ((tmp_path / "x.txt", "there is no such file"), (tmp_path, "is none that")):
        with pytest.raises(DataError, match=f"{kind}.*; expected a CSV table with the columns"):
            import_run(source, tmp_path / "run", BaseModel())
    (tmp_path / "latin.csv").write_bytes("plät".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        import_run(tmp_path / "latin.csv", tmp_path / "run", BaseModel())


def test_a_run_that_is_there_is_left_alone(table, tmp_path):
    table(PER_TRIAL)
    before = (tmp_path / "run/run.sqlite").read_bytes()
    with pytest.raises(RunFolderError, match=r"holds run\.sqlite; give an empty or a new folder"):
        import_run(tmp_path / "table.csv", tmp_path / "run", BaseModel())
    assert (tmp_path / "run/run.sqlite").read_bytes() == before
