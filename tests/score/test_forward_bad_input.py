"""What forward-only scorers say of rows and models that are not as they should be."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from forward_subjects import CPU, family_subject, num_hooks
from scored_subjects import subject_of

import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.data.spec import DataSpec
from loratlas.errors import RequestError, TrialError
from loratlas.score.block_influence import BlockInfluence
from loratlas.score.eva import Eva
from loratlas.score.inverted import Inverted
from loratlas.score.plop import Plop, PlopSite
from loratlas.score.run import score
from loratlas.train.base import load_base
from loratlas.train.trial import ModelRef

SCORERS = [Plop(), PlopSite(), Eva(), BlockInfluence(), Inverted(Plop())]
NAMES = [each.name for each in SCORERS]
every_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


def copy_of(base):
    """Return a base whose model may be changed."""
    return replace(base, model=copy.deepcopy(base.model))


def row(number, ids, scored):
    return TokenizedRow(
        row=number, ids=frozen_ids(ids), scored=frozen_marks(scored), num_bytes=len(ids)
    )


@pytest.mark.parametrize("scorer", [Plop(), Eva(), BlockInfluence()], ids=lambda s: s.name)
@pytest.mark.parametrize("family", families.EVERY)
def test_every_family_is_scored(scorer, family, folder):
    rule = "attention" if "mix" in family or "moe" in family else "all"
    subject = family_subject(family, folder / family, rule=rule)
    before = num_hooks(subject.base.model)
    table = score(scorer, subject)
    assert all(math.isfinite(each.value) for each in table.scores)
    assert all(each.num_tokens > 0 for each in table.scores)
    assert table.cost.num_forwards == len(subject.rows)
    assert num_hooks(subject.base.model) == before


@every_scorer
def test_the_same_rows_give_the_same_numbers(scorer, base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:8])
    first, again = (score(scorer, subject).to_json()["scores"] for _ in range(2))
    assert first == again


@every_scorer
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_are_refused(scorer, count, base, anatomy, prepared):
    subject = subject_of(base, anatomy, prepared.train.rows[:count])
    with pytest.raises(RequestError, match=f"{scorer.name}: {count} training rows; at least 2"):
        score(scorer, subject)


@every_scorer
def test_rows_of_two_tokens(scorer, base, anatomy):
    rows = [row(0, [5, 6], [False, True]), row(1, [7, 8], [False, True])]
    table = score(scorer, subject_of(base, anatomy, rows))
    assert all(math.isfinite(each.value) for each in table.scores)
    if scorer.name == "eva":
        # Two tokens differ in one direction, and one token in none.
        assert {round(each.value, 5) for each in table.scores} == {1}
        assert "a half of the rows gives every site the same value" in table.notes[-1]


@every_scorer
def test_rows_of_one_token_that_predicts_nothing(scorer, base, anatomy):
    rows = [row(number, [number + 3], [False]) for number in range(4)]
    subject = subject_of(base, anatomy, rows)
    if scorer.name == "eva":
        with pytest.raises(TrialError, match="c_attn: no scored token of one half of the rows"):
            score(scorer, subject)
    else:
        assert score(scorer, subject).scores[0].num_tokens == 4


@every_scorer
def test_rows_that_are_all_the_same(scorer, base, anatomy, prepared):
    rows = [replace(prepared.train.rows[0], row=number) for number in range(6)]
    table = score(scorer, subject_of(base, anatomy, rows))
    assert all(math.isfinite(each.value) for each in table.scores)
    if scorer.name != "eva":
        # Sums of the same numbers in passes of four rows and of two.
        assert [each.stderr for each in table.scores] == pytest.approx([0] * 12, abs=1e-6)
        assert table.agreement == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("scorer", [Plop(), PlopSite(), BlockInfluence()], ids=lambda s: s.name)
def test_how_many_rows_go_together_makes_no_difference(scorer, base, anatomy, prepared):
    tables = [
        score(scorer, subject_of(base, anatomy, prepared.train.rows[:9], batch=batch))
        for batch in (1, 4, 64)
    ]
    first, *others = ([each.value for each in table.scores] for table in tables)
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)


def test_more_directions_than_there_are(base, anatomy, prepared):
    many = subject_of(base, anatomy, prepared.train.rows[:8], max_rank=10_000)
    for each in score(Eva(), many).scores:
        assert len(each.curve) <= min(each.num_tokens - 1, 128)
        assert sum(each.curve) == pytest.approx(1, abs=1e-4)
    one = subject_of(base, anatomy, prepared.train.rows[:8], max_rank=1)
    assert {len(each.curve) for each in score(Eva(), one).scores} == {1}


@every_scorer
def test_dropout_is_off_meanwhile(scorer, anatomy, base, prepared):
    with_dropout = copy_of(base)
    for module in with_dropout.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    with_dropout.model.train()
    rows = prepared.train.rows[:4]
    found = score(scorer, subject_of(with_dropout, anatomy, rows))
    assert with_dropout.model.training
    plain = score(scorer, subject_of(base, anatomy, rows))
    assert [each.value for each in found.scores] == [each.value for each in plain.scores]


@pytest.mark.parametrize("scorer", [Plop(), Eva(), BlockInfluence()], ids=lambda s: s.name)
def test_a_base_in_bf16(scorer, base, anatomy, prepared, tiny_folder):
    half = load_base(
        ModelRef(name=str(tiny_folder)), dtype="bf16", base_dropout=0.0, device=torch.device("cpu")
    )
    rows = prepared.train.rows[:8]
    found = score(scorer, subject_of(half, anatomy, rows))
    plain = score(scorer, subject_of(base, anatomy, rows))
    # bf16 has eight bits; three layers of it.
    assert [each.value for each in found.scores] == pytest.approx(
        [each.value for each in plain.scores], rel=0.05, abs=0.005
    )


@pytest.mark.parametrize("scorer", [Plop(), Eva(), BlockInfluence()], ids=lambda s: s.name)
def test_a_classifier(scorer, folder):
    path = folder / "classes"
    families.write("llama", path)
    lines = [f'{{"text": "house {n} in Oslo", "label": "{n % 3}"}}' for n in range(40)]
    (path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    ref = ModelRef(name=str(path), num_labels=3)
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=CPU)
    spec = DataSpec(
        source="rows.jsonl", format="classification", train=10, validation=4, test=4, max_length=48
    )
    data = prepare(spec, base.tokenizer, root=path, task="classification")
    subject = subject_of(base, read(ref.name), data.train.rows)
    table = score(scorer, subject)
    assert {each.num_tokens for each in table.scores} == {sum(len(r.ids) for r in data.train.rows)}


def test_a_quantised_weight_is_refused_by_what_reads_it(base, anatomy, prepared):
    model = copy_of(base)
    module = model.model.transformer.h[0].mlp.c_fc
    module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    subject = subject_of(model, anatomy, prepared.train.rows[:4])
    with pytest.raises(RequestError, match=r"plop cannot score it: .*c_fc is quantised .*int8"):
        score(Plop(), subject)
    assert Eva().why_not(subject) is None


def test_a_map_of_another_kind_is_refused_by_what_reads_its_weight(base, anatomy, prepared):
    model = copy_of(base)
    model.model.transformer.h[0].mlp.c_fc = _Doubling()
    subject = subject_of(model, anatomy, prepared.train.rows[:4])
    with pytest.raises(RequestError, match="c_fc is a _Doubling; the weights of Linear and Conv1D"):
        score(Plop(), subject)
    # What it reads is all that EVA asks for.
    assert len(score(Eva(), subject).scores) == 12


class _Doubling(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x, x, x, x], dim=-1)


@every_scorer
def test_weights_that_are_no_numbers(scorer, base, anatomy, prepared):
    model = copy_of(base)
    with torch.no_grad():
        model.model.transformer.h[1].mlp.c_proj.weight[0, 0] = math.nan
    before = num_hooks(model.model)
    with pytest.raises(TrialError):
        score(scorer, subject_of(model, anatomy, prepared.train.rows[:4]))
    assert num_hooks(model.model) == before


def test_a_model_that_mixes_rows_is_named(base, anatomy, prepared):
    model = copy_of(base)
    mlp = model.model.transformer.h[1].mlp
    plain = mlp.forward
    mlp.forward = lambda hidden: torch.cat(
        [plain(part[None]) for part in hidden.flatten(0, 1).split(max(1, hidden.shape[1] - 1))],
        dim=1,
    ).reshape(hidden.shape)
    subject = subject_of(model, anatomy, prepared.train.rows[:4])
    with pytest.raises(TrialError, match=r"h\.1\.mlp\.c_fc: reads the tokens of several rows in"):
        score(Plop(), subject)


def test_a_model_without_variance_has_curves_of_zeros(base, anatomy):
    """The first block of a model whose embeddings are all the same reads the same everywhere."""
    model = copy_of(base)
    with torch.no_grad():
        model.model.transformer.wte.weight[:] = model.model.transformer.wte.weight[0].clone()
        model.model.transformer.wpe.weight.zero_()
    rows = [row(n, [n + 3] * 5, [False] + [True] * 4) for n in range(4)]
    found = Eva().measure(subject_of(model, anatomy, rows))
    assert np.isfinite(found.values).all()
    assert found.curves[0].sum() == 0
