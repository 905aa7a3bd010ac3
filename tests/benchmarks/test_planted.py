"""Is what is planted where it is said to be, and is it found by who knows it?"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from loratlas.anatomy.read import read
from loratlas.train.base import load_base, weights_digest
from loratlas.train.trial import ModelRef
from made_tables import table_of

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(scope="module")
def demo():
    return load_base(
        ModelRef(name="demo:gpt2"), dtype="fp32", base_dropout=0.0, device=torch.device("cpu")
    )


@pytest.fixture(scope="module")
def sites():
    return [site for site in read("demo:gpt2").sites if site.in_block]


@pytest.fixture(scope="module")
def change(benchmarks, demo, sites):
    return benchmarks.teachers.planted(demo, sites[1], seed=5)


def test_a_change_has_its_rank_and_its_strength(benchmarks, demo, change):
    weight = demo.model.get_submodule(change.site.path).weight
    assert change.update.shape == weight.shape
    assert torch.linalg.matrix_rank(change.update) == benchmarks.teachers.RANK
    assert change.update.norm() / weight.norm() == pytest.approx(change.strength, rel=1e-5)
    # The strength is found to within 2%, and the divergence goes with about its square.
    assert change.divergence == pytest.approx(benchmarks.teachers.DIVERGENCE, rel=0.06)


def test_the_base_is_changed_for_a_while_alone(benchmarks, demo, change):
    before = weights_digest(demo.model)
    weight = demo.model.get_submodule(change.site.path).weight
    plain = weight.clone()
    with benchmarks.teachers.changed(demo, {change.site.path: change.update}):
        assert torch.equal(weight, plain + change.update)
    assert weights_digest(demo.model) == before


def test_sites_are_drawn_by_the_seed(benchmarks):
    chosen = benchmarks.teachers.chosen_sites
    anatomy = read("demo:gpt2")
    order = [site.path for site in anatomy.sites]
    drawn = [[site.path for site in chosen(anatomy, 3, seed)] for seed in range(6)]
    assert drawn[0] == [site.path for site in chosen(anatomy, 3, 0)]
    assert all(sorted(paths, key=order.index) == paths for paths in drawn)
    assert all(len(set(paths)) == 3 for paths in drawn)
    assert len({tuple(paths) for paths in drawn}) == 6


def test_rows_are_what_the_teacher_writes(benchmarks, demo, change):
    """The teacher gives its own texts a lower loss than the base does, and the base its own."""
    teachers = benchmarks.teachers
    prompts = teachers._texts(demo, teachers.PROMPT_TOKENS, 48)
    updates = {change.site.path: change.update}

    def loss(ids):
        with torch.no_grad():
            told = demo.model(ids).logits[:, teachers.PROMPT_TOKENS - 1 : -1].log_softmax(-1)
        return -told.gather(2, ids[:, teachers.PROMPT_TOKENS :, None]).mean()

    own = teachers.sampled(demo, prompts, torch.Generator().manual_seed(0))
    with teachers.changed(demo, updates):
        written = teachers.sampled(demo, prompts, torch.Generator().manual_seed(0))
        by_teacher = loss(written), loss(own)
    assert torch.equal(written[:, : teachers.PROMPT_TOKENS], prompts)
    assert written.shape[1] == teachers.PROMPT_TOKENS + teachers.NEW_TOKENS
    assert by_teacher[0] < loss(written)
    assert loss(own) < by_teacher[1]


def test_drawn_tokens_follow_the_models_probabilities(benchmarks, demo, monkeypatch):
    teachers = benchmarks.teachers
    monkeypatch.setattr(teachers, "NEW_TOKENS", 1)
    prompt = teachers._texts(demo, teachers.PROMPT_TOKENS, 1)
    with torch.no_grad():
        wanted = demo.model(prompt).logits[0, -1].softmax(-1)
    ids = teachers.sampled(demo, prompt.repeat(2000, 1), torch.Generator().manual_seed(1))
    drawn = torch.bincount(ids[:, teachers.PROMPT_TOKENS], minlength=len(wanted)) / 2000
    # Four standard errors of a share.
    assert ((drawn - wanted).abs() <= 4 * (wanted * (1 - wanted) / 2000).sqrt() + 1e-3).all()


def told(method, values, sites):
    return table_of(dict(zip((site.path for site in sites), values, strict=True)), method=method)


@pytest.fixture
def found(benchmarks, sites):
    """A set planted at sites 2 and 5, found by brute force, by one scorer half, and by one not."""
    changes = [
        benchmarks.teachers.Change(
            site=sites[number], update=torch.zeros(1), strength=2.0, divergence=0.3
        )
        for number in (2, 5)
    ]
    values = np.zeros(len(sites))
    values[[2, 5]] = 3, 4
    half = values.copy()
    half[[2, 7]] = 0, 9
    return benchmarks.planted.Found(
        changes=changes,
        sites=sites,
        losses={"base": 2.0, "teacher": 1.0, "adapters": 1.2},
        truth=told("add_one_in", values, sites),
        tables=[told("half", half, sites), told("alike", np.ones(len(sites)), sites)],
    )


def test_precisions_stand_beside_chance(benchmarks, found):
    rows = list(benchmarks.planted.precisions([found, found]))
    chance = f"{2 / 24:.2f}"
    assert rows == [
        ["add_one_in", "1.00 (2, 1)", "1.00 (2, 1)", "1.00"],
        ["half", "0.50 (3, 2)", "0.50 (3, 2)", "0.50"],
        ["alike", f"{chance} (1, 1)", f"{chance} (1, 1)", chance],
        ["chance", chance, chance, chance],
    ]
    assert "in every set" in benchmarks.planted.verdict([found])


def test_where_brute_force_finds_other_sites_the_page_says_so(benchmarks, found, sites):
    other = replace(found, truth=found.tables[0])
    text = benchmarks.planted.page([found, other, other], "command")
    assert "Brute force does not put the planted sites first in set 2 and 3" in text
    assert f"{sites[2].path}<br>{sites[5].path}" in text


@pytest.mark.slow
def test_runs_end_to_end(benchmarks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.planted, "methods", lambda: ["gradient"])
    monkeypatch.setattr(
        benchmarks.teachers, "QUICK_SPLITS", {"train": 16, "validation": 6, "test": 6}
    )
    training = {"steps": 2, "batch": 4, "learning_rate": 2e-2}
    monkeypatch.setattr(benchmarks.teachers, "QUICK_TRAINING", training)
    figures = tmp_path / "figures.json"
    arguments = ["--quick", "--out", str(tmp_path), "--json", str(figures), "--threads", "1"]
    benchmarks.planted.main(arguments)
    said = capsys.readouterr().out
    (told,) = json.loads(figures.read_text())
    assert len(told["planted"]) == 2
    assert len(told["brute_force"]["scores"]) == 24
    assert sorted(told["found"]) == ["add_one_in", "gradient"]
    assert told["losses"]["teacher"] < told["losses"]["base"]
    assert "| chance | 0.08 | 0.08 |" in said
