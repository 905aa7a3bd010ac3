"""Placements: counts by hand, scales, set algebra, digests, plain data."""

import pytest

import anatomies
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import PlacementError
from loratlas.placement.placement import SCALINGS, Adapter, LoraSpec, Placement, place

MEDIUM = anatomies.gpt2()
LLAMA = anatomies.llama()
T5 = anatomies.t5()


@pytest.mark.parametrize(
    ("rule", "trainable"),
    [
        ("all", 6_291_456),
        ("names(c_attn, c_proj)", 4_325_376),
        ("names(c_fc)", 1_966_080),
        ("attention", 2_359_296),
        ("feed_forward", 3_932_160),
    ],
)
def test_dialogpt_medium_at_rank_16(rule, trainable):
    # Per block: qkv 1024 + 3072, o 1024 + 1024, up 1024 + 4096, down 4096 + 1024; 24 blocks.
    assert place(MEDIUM, rule, rank=16).trainable_parameters == trainable


def test_grouped_query_attention_and_experts_count_what_they_hold():
    # q 32 + 32, k and v 32 + 16, o 32 + 32, at rank 8, in 4 layers.
    assert place(LLAMA, "attention").trainable_parameters == 8 * 4 * (64 + 48 + 48 + 64)
    # gate_up 32 + 96, down 48 + 32, for each of 4 experts, in 2 layers.
    found = place(anatomies.mixtral(), "expert", rank=2).trainable_parameters
    assert found == 2 * 2 * 4 * (128 + 80)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_other_ranks_keep_the_scale_of_a_site(scaling):
    placed = place(LLAMA, "attention + feed_forward:4", rank=16, alpha=32, scaling=scaling)
    first, second, *_ = placed.by_path
    changed = placed.with_ranks({first: 3, second: 50})
    assert {path: adapter.rank for path, adapter in changed.by_path.items()} == {
        first: 3, second: 50,
    }  # fmt: skip
    for path, adapter in changed.by_path.items():
        assert changed.scale(adapter) == pytest.approx(placed.scale(placed.by_path[path]))


@pytest.mark.parametrize(
    ("scaling", "alphas", "scales"),
    [
        ("constant", {16: 32, 4: 8}, {16: 2, 4: 2}),
        ("alpha/r", {16: 32, 4: 32}, {16: 2, 4: 8}),
        ("rslora", {16: 32, 4: 32}, {16: 8, 4: 16}),
    ],
)
def test_scale_by_rank(scaling, alphas, scales):
    placed = place(LLAMA, "attention + feed_forward:4", rank=16, alpha=32, scaling=scaling)
    assert {a.rank: a.alpha for a in placed.adapters} == alphas
    assert {a.rank: placed.scale(a) for a in placed.adapters} == scales


def test_constant_scaling_keeps_the_scale_whatever_the_rank():
    lora = LoraSpec(rank=12, alpha=7)
    for rank in range(1, 200):
        assert lora.alpha_at(rank) / rank == pytest.approx(7 / 12, rel=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is a positive integer, not 0"),
        ({"rank": 2.0}, "rank is a positive integer, not 2.0"),
        ({"alpha": 0}, "alpha is positive, not 0"),
        ({"alpha": float("nan")}, "alpha is positive, not nan"),
        ({"scaling": "rs-lora"}, "did you mean rslora?); it is one of constant, alpha/r, rslora"),
        ({"dropout": 1.0}, "dropout is at least 0 and below 1, not 1.0"),
    ],
)
def test_a_wrong_spec_is_told(options, message):
    with pytest.raises(PlacementError) as error:
        LoraSpec(**options)
    assert message in str(error.value)


def test_algebra_is_by_site():
    attention, feed_forward = place(LLAMA, "attention"), place(LLAMA, "feed_forward")
    everything = place(LLAMA, "all")
    assert attention | feed_forward == everything
    assert feed_forward | attention == everything
    assert everything & attention == attention
    assert everything - attention == feed_forward
    assert (attention & feed_forward).adapters == ()
    assert (attention - place(LLAMA, "attention.q", rank=3)) == place(
        LLAMA, "attention - attention.q"
    )


def test_ranks_that_differ_do_not_mix():
    eight, four = place(LLAMA, "attention"), place(LLAMA, "all", rank=4)
    message = (
        "16 sites differ in rank or alpha, first model.layers.0.self_attn.q_proj: "
        "rank 8, alpha 16 and rank 4, alpha 16"
    )
    with pytest.raises(PlacementError) as error:
        eight | four
    assert str(error.value) == message
    with pytest.raises(PlacementError, match="16 sites differ"):
        eight & four


def test_models_and_scalings_do_not_mix():
    other = place(anatomies.llama(layers=3), "all")
    for operation in ("__or__", "__and__", "__sub__", "diff"):
        with pytest.raises(PlacementError, match="placements of different models do not mix"):
            getattr(place(LLAMA, "all"), operation)(other)
    with pytest.raises(PlacementError, match="different scaling do not mix: constant and rslora"):
        place(LLAMA, "all") | place(LLAMA, "head", scaling="rslora")


def test_diff_tells_what_is_on_one_side_and_what_changed():
    left = place(LLAMA, "attention.q:8 + attention.k:8")
    right = place(LLAMA, "attention.q:4 + attention.v:8")
    diff = left.diff(right)
    assert {str(a.site.role) for a in diff.only_left} == {"attention.k"}
    assert {str(a.site.role) for a in diff.only_right} == {"attention.v"}
    assert {(a.rank, b.rank) for a, b in diff.changed} == {(8, 4)}
    assert len(diff.changed) == 4
    assert diff
    assert not left.diff(left)


def test_digest_is_over_what_is_trained_and_not_over_how_it_was_said():
    said = [
        place(LLAMA, "all"),
        place(LLAMA, "attention + feed_forward:8"),
        place(LLAMA, "names(*_proj)"),
    ]
    assert len({placed.digest for placed in said}) == 1
    assert place(LLAMA, "all", alpha=16.0).digest == place(LLAMA, "all", alpha=16).digest
    different = [
        place(LLAMA, "all"),
        place(LLAMA, "attention"),
        place(LLAMA, "all", rank=4),
        place(LLAMA, "all", alpha=8),
        place(LLAMA, "all", scaling="rslora"),
    ]
    assert len({placed.digest for placed in different}) == len(different)
    # Equal ranks and alphas are the same training, whichever rule of scaling led there.
    assert place(LLAMA, "all", scaling="alpha/r").digest == place(LLAMA, "all").digest


def test_plain_data_reads_back():
    placed = place(T5, "attention:3 + feed_forward:5", rank=4, alpha=6)
    data = placed.to_json()
    assert data["trainable_parameters"] == placed.trainable_parameters
    assert data["placement"][0] == {
        "path": "encoder.block.0.layer.0.SelfAttention.q",
        "rank": 3,
        "alpha": 4.5,
    }
    assert Placement.from_json(data, T5) == placed
    with pytest.raises(PlacementError, match="the saved placement: 42 of 42 sites are not in"):
        Placement.from_json(data, LLAMA)


def test_placements_are_hashable_and_ordered_by_the_model():
    placed = place(LLAMA, "all")
    shuffled = Placement(
        anatomy=LLAMA, adapters=tuple(reversed(placed.adapters)), scaling="constant"
    )
    assert shuffled == placed
    assert len({placed, shuffled}) == 1
    again = Anatomy.from_json(LLAMA.to_json())
    assert place(again, "all") == placed


def test_a_site_takes_one_adapter_and_is_there():
    (first, *_) = place(LLAMA, "all").adapters
    with pytest.raises(PlacementError, match="has two adapters; a site takes one"):
        Placement(anatomy=LLAMA, adapters=(first, first), scaling="constant")
    foreign = Adapter(site=T5.sites[1], rank=1, alpha=1)
    with pytest.raises(PlacementError, match="llama has no site encoder"):
        Placement(anatomy=LLAMA, adapters=(foreign,), scaling="constant")
