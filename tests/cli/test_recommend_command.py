import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from loratlas.cli.quantities import parse_count, parse_loss, parse_seconds, parse_size
from loratlas.errors import RequestError
from loratlas.measure.scores import SplitScore
from loratlas.study.folder import FILE_NAME
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

TOKENS = np.full(30, 8)
MIB = 2**20


def _score(loss, chance, spread):
    return SplitScore(
        row=np.arange(30),
        nll=TOKENS * (loss + chance.normal(0, spread, size=30)),
        num_tokens=TOKENS,
        num_bytes=TOKENS * 4,
        num_correct=TOKENS // 2,
    )


def _placement(name, parameters):
    return PlacementRecord(
        name=name,
        digest=name,
        rule="all",
        trainable_parameters=parameters,
        matched_to=None,
        families={},
        adapters=[],
        warnings=[],
    )


def _trial(name, seed, status="done"):
    return TrialRecord(
        digest=f"{name}-{seed}",
        placement_digest=name,
        learning_rate=1e-3,
        seed=seed,
        status=status,
        engine="reference",
        adapter_bytes=5_000,
    )


@pytest.fixture
def run_folder(tmp_path):
    """A run of three placements with four seeds each, as it would have been stored."""
    chance, folder = np.random.default_rng(3), tmp_path / "run"
    folder.mkdir()
    losses = {"full": 2.0, "cheap": 2.0, "po[o]r": 2.4}
    parameters = dict(zip(losses, (4_000, 1_000, 500), strict=True))
    with closing(Store(folder / FILE_NAME, writable=True)) as store:
        store.set_placements([_placement(name, count) for name, count in parameters.items()])
        for key, value in {
            "name": "tiny",
            "study": {"baseline": "full", "margin": 0.1},
            "chosen": dict.fromkeys(losses, 1e-3),
            "steps_per_trial": 20,
            "num_trials": 12,
            "wanted": [f"{name}-{seed}" for name in losses for seed in range(4)],
            "finished": True,
            "rates_chosen": True,
        }.items():
            store.set_meta(key, value)
        store.set_base_scores({"test": _score(3.0, chance, 0.1)})
        for name, loss in losses.items():
            for seed in range(4):
                score = _score(loss + chance.normal(0, 0.01), chance, 0.02)
                store.add_trial(_trial(name, seed), {}, {"test": score})
            probe = Probe(
                seconds_per_step=0.5,
                tokens_per_second=9.0,
                peak_memory_bytes=parameters[name] * 1_000,
                num_steps=3,
                engine="reference",
                step_seconds=[0.4, 0.5, 0.6],
            )
            store.set_probe(name, probe)
    return folder


def test_one_placement_with_its_evidence(cli, run_folder):
    said = cli("recommend", run_folder)
    assert said.code == 0, said
    assert said.err == ""
    assert "Take cheap: of the 2 placements that may have the lowest loss" in said.out
    assert "po[o]r is not the best" in said.out
    found = cli("recommend", run_folder, "--json").json
    assert found["placement"] == "cheap"
    assert found["indistinguishable"] == ["full"]
    assert all(sentence in said.out for sentence in found["evidence"])
    assert found["placements"]["po[o]r"]["may_be_best"] is False
    assert found["placements"]["cheap"]["difference"] is None
    assert found["placements"]["cheap"]["seconds"] == 10
    assert found["tolerance"] == 0.1
    assert list(found)[:3] == ["study", "placement", "verdict"]


@pytest.mark.parametrize(
    ("options", "placement", "code"),
    [
        (("--max-parameters", "0.5k"), "po[o]r", 0),
        (("--max-memory", "4MB"), "cheap", 0),
        (("--max-memory", "1 kB"), None, 1),
        (("--max-seconds", "9"), None, 1),
        (("--max-loss-increase", "20%"), "cheap", 0),
        (("--max-loss-increase", "0.9", "--preset", "resource-constrained"), "po[o]r", 0),
        (("--preset", "performance-critical"), "cheap", 0),
    ],
)
def test_budgets_and_presets(cli, run_folder, options, placement, code):
    said = cli("recommend", run_folder, "--json", *options)
    assert (said.code, said.json["placement"]) == (code, placement)
    assert cli("recommend", run_folder, *options).code == code


def test_nothing_is_allowed(cli, run_folder):
    said = cli("recommend", run_folder, "--max-parameters", "10")
    assert said.code == 1
    assert "The nearest is po[o]r." in said.out
    assert "full: over the budget. It takes 4,000 parameters; allowed: 10 parameters." in said.out


def test_an_unfinished_run_and_a_diverged_trial(cli, run_folder):
    with closing(Store(run_folder / FILE_NAME, writable=True)) as store:
        store.add_trial(_trial("cheap", 3, "diverged"), {}, {})
        store.set_meta("finished", False)
        store.set_meta("wanted", [*store.meta("wanted"), "full-9"])
    found = cli("recommend", run_folder, "--json").json
    assert found["placement"] == "full"
    assert "cheap: set aside. 1 of 4 trials diverged or failed." in found["evidence"]
    assert found["evidence"][-1] == "The run is not finished: 1 of 13 trials is missing."


def test_a_run_that_has_only_begun(cli, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    Store(folder / FILE_NAME, writable=True).close()
    said = cli("recommend", folder)
    assert said.code == 1
    assert "The run has only begun" in said.out
    assert cli("recommend", folder, "--json").json["placements"] == {}


def test_one_seed_cannot_tell(cli, run_folder):
    with closing(Store(run_folder / FILE_NAME, writable=True)) as store:
        trials = store.trials()
        rate = dict.fromkeys(("full", "cheap", "po[o]r"), 0.002)
        for name in rate:
            old = trials[f"{name}-0"]
            score = store.scores(old.digest)
            store.add_trial(replace(old, digest=f"{name}-x", learning_rate=2e-3), {}, score)
        store.set_meta("chosen", rate)
    said = cli("recommend", run_folder)
    assert said.code == 1
    assert "Cannot tell: no placement can be held against another." in said.out
    assert cli("recommend", run_folder, "--json").json["more_seeds"] is None


def test_no_run(refused, tmp_path, run_folder):
    shutil.rmtree(run_folder)
    assert refused("recommend", run_folder).startswith(f"{run_folder}: no such run folder")


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_size, "2GiB", 2 * 1024**3),
        (parse_size, "2 gb", 2 * 10**9),
        (parse_size, "512mib", 512 * MIB),
        (parse_size, "1048576", MIB),
        (parse_size, "1.5KiB", 1536),
        (parse_size, "7B", 7),
        (parse_count, "250_000", 250_000),
        (parse_count, "1,500", 1_500),
        (parse_count, "1.5M", 1_500_000),
        (parse_count, "7b", 7 * 10**9),
        (parse_count, "1e6", 10**6),
        (parse_seconds, "1.5min", 90),
        (parse_seconds, "2h", 7_200),
        (parse_seconds, "0.25s", 0.25),
    ],
)
def test_quantities(parse, text, expected):
    assert parse(text, "--max") == expected


@pytest.mark.parametrize("text", ["1e999", "inf", "12q", "--", "1..2", "1 000"])
def test_no_quantities(text):
    for parse in (parse_size, parse_count, parse_seconds, parse_loss):
        with pytest.raises(RequestError, match=r"^--max "):
            parse(text, "--max")


def test_limits_on_the_loss():
    assert parse_loss("5%", "--max").amount == 0.05
    assert parse_loss("5 %", "--max").is_share
    assert str(parse_loss("0.02", "--max")) == "0.02 nats per token"
    assert parse_loss("0", "--max").amount == 0
