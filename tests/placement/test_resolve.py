"""What words, scopes, names and files select, and the wording when they do not fit a model."""

import json
from dataclasses import replace

import pytest

import anatomies
from loratlas.anatomy.sites import Role, Site
from loratlas.errors import PlacementError
from loratlas.placement.placement import place

GPT2 = anatomies.gpt2(width=8, layers=4)
LLAMA = anatomies.llama(layers=8)
T5 = anatomies.t5()
MIXTRAL = anatomies.mixtral()


def paths(anatomy, rule, **options):
    return [adapter.site.path for adapter in place(anatomy, rule, **options).adapters]


def layers(rule, anatomy=LLAMA):
    return sorted({adapter.site.layer for adapter in place(anatomy, rule).adapters})


def roles(anatomy, rule):
    return sorted({str(adapter.site.role) for adapter in place(anatomy, rule).adapters})


@pytest.mark.parametrize(
    ("anatomy", "rule", "expected"),
    [
        (GPT2, "attention", ["attention.o", "attention.qkv"]),
        (GPT2, "feed_forward", ["feed_forward.down", "feed_forward.up"]),
        (GPT2, "head | embedding", ["embedding", "head"]),
        (LLAMA, "attention.q | feed_forward.down", ["attention.q", "feed_forward.down"]),
        (LLAMA, "all.down", ["feed_forward.down"]),
        (T5, "attention.q", ["attention.q", "cross_attention.q"]),
        (T5, "self_attention.q", ["attention.q"]),
        (T5, "cross_attention.v", ["cross_attention.v"]),
        (MIXTRAL, "feed_forward", ["expert.down", "expert.gate_up"]),
        (MIXTRAL, "router", ["router"]),
    ],
)
def test_words_mean_roles(anatomy, rule, expected):
    assert roles(anatomy, rule) == expected


def test_all_is_every_site_inside_the_blocks_except_routers():
    assert len(paths(GPT2, "all")) == 4 * 4
    assert "router" not in roles(MIXTRAL, "all")
    assert len(paths(MIXTRAL, "all")) == 2 * 6
    assert paths(T5, "all") == paths(T5, "attention | feed_forward")


def test_adapters_stand_in_the_order_of_the_model():
    order = [site.path for site in LLAMA.sites]
    found = paths(LLAMA, "head | feed_forward | attention")
    assert found == [path for path in order if path != "model.embed_tokens"]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("layers(0, 3, 5..6)", [0, 3, 5, 6]),
        ("layers(-1)", [7]),
        ("layers(-3..-2)", [5, 6]),
        ("layers(6..-1)", [6, 7]),
        ("layers(6..)", [6, 7]),
        ("layers(..1)", [0, 1]),
        ("layers(50%..)", [4, 5, 6, 7]),
        ("layers(..25%)", [0, 1]),
        ("layers(25%..50%)", [2, 3]),
        ("layers(12.5%..25%, 80%..100%)", [1, 7]),
        ("first(2)", [0, 1]),
        ("last(3)", [5, 6, 7]),
        ("last(8)", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("every(3)", [0, 3, 6]),
        ("every(9)", [0]),
        ("every(2) @ last(4)", [4, 6]),
        ("decoder @ first(1)", [0]),
    ],
)
def test_scopes_choose_layers(scope, expected):
    assert layers(f"all @ {scope}") == expected


@pytest.mark.parametrize("total", [3, 7, 24, 32])
def test_percentages_split_a_stack_without_gap_or_overlap(total):
    anatomy = anatomies.llama(layers=total)
    third = [
        layers(f"all @ layers({part})", anatomy) for part in ("..33.3%", "33.3%..66.6%", "66.6%..")
    ]
    assert sorted(layer for part in third for layer in part) == list(range(total))
    assert third[0] == [i for i in range(total) if 100 * i / total < 33.3]


def test_layers_count_in_each_stack_by_itself():
    found = place(T5, "self_attention.q @ last(1)").adapters
    assert [adapter.site.path for adapter in found] == [
        "encoder.block.1.layer.0.SelfAttention.q",
        "decoder.block.2.layer.0.SelfAttention.q",
    ]


@pytest.mark.parametrize(
    "rule", ["all @ layers(2) @ decoder", "all @ decoder @ layers(2)", "cross_attention @ last(3)"]
)
def test_a_layer_is_looked_for_only_in_the_stacks_that_are_reached(rule):
    assert {adapter.site.stack for adapter in place(T5, rule).adapters} == {"decoder"}


@pytest.mark.parametrize(
    ("anatomy", "rule", "message"),
    [
        (LLAMA, "all @ layers(3, 99)", "layer 99 is not there: the decoder of llama has 8 layers"),
        (LLAMA, "all @ layers(-9)", "layer -9 is not there"),
        (LLAMA, "all @ layers(5..9)", "layer 9 is not there"),
        (LLAMA, "all @ layers(5..-5)", "layers 5..-5 run backwards"),
        (LLAMA, "all @ last(9)", "last(9) asks for more layers than there are: the decoder of"),
        (LLAMA, "all | attention @ first(9)", "first(9) asks for more layers than there are"),
        (T5, "all @ layers(2)", "the encoder of t5 has 2 layers, 0..1; narrow the rule with @"),
        (GPT2, "all @ encoder", "gpt2 has no encoder; its stacks are decoder"),
        (GPT2, "attention.q", "gpt2 fuses q, k and v in attention.qkv; its attention roles are"),
        (GPT2, "attention.q", "attention.qkv (4), attention.o (4)"),
        (MIXTRAL, "expert.up", "mixtral fuses gate and up in expert.gate_up"),
        (LLAMA, "attention.qkv", "llama has no attention.qkv; its attention roles are attention.q"),
        (LLAMA, "expert", "llama has no expert site; its roles are embedding (1), attention.q (8)"),
        (LLAMA, "attention & feed_forward", "attention and feed_forward share no site"),
        (LLAMA, "attention - all", "nothing is left"),
        (LLAMA, "head @ first(1)", "head has no site in that scope"),
        (LLAMA, "all @ layers(1%..2%)", "all has no site in that scope"),
        (LLAMA, "expert:4 + recurrent:2", "the rule expert:4 + recurrent:2 selects no site"),
        (LLAMA, "names(q_proj, valu_proj)", "names(valu_proj) matches no site of llama (did you"),
        (LLAMA, "names(valu_proj)", "did you mean v_proj?"),
        (LLAMA, "attention | names(*mlp*)", "* stays within one dotted segment"),
        (LLAMA, "names(zzz)", "names there: embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_"),
        (
            GPT2,
            "attention:4 + names(c_proj):8",
            "the parts attention:4 and names(c_proj):8 overlap in 4 sites: "
            "transformer.h.0.attn.c_proj, transformer.h.1.attn.c_proj",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_told(anatomy, rule, message):
    with pytest.raises(PlacementError) as error:
        place(anatomy, rule)
    assert message in str(error.value)


def test_a_stack_that_is_not_reached_is_not_asked_for_its_layers():
    assert layers("cross_attention @ layers(2)", T5) == [2]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("c_proj", 8),
        ("attn.c_proj", 4),
        ("transformer.h.1.attn.c_proj", 1),
        ("h.1.attn.c_proj", 1),
        ("*.c_proj", 8),
        ("h.*.mlp.c_*", 8),
        ("h.[02].attn.c_*", 4),
        ("attn.*", 8),
        ("lm_head, wte", 2),
        ("c_?roj", 8),
    ],
)
def test_names_are_dotted_suffixes_or_globs_by_segment(names, expected):
    assert len(paths(GPT2, f"names({names})")) == expected


def test_a_name_is_no_substring():
    anatomy = anatomies.gpt2(width=8, layers=12)
    assert paths(anatomy, "names(h.1.attn.c_attn)") == ["transformer.h.1.attn.c_attn"]
    with pytest.raises(PlacementError, match="matches no site"):
        place(anatomy, "names(proj)")
    with pytest.raises(PlacementError, match="matches no site"):
        place(anatomy, "names(h.*.c_proj)")  # * does not cross a dot


def save(folder, rows, name="saved.json"):
    (folder / name).write_text(json.dumps({"placement": rows, "warnings": []}))


def test_a_saved_placement_gives_its_sites_and_ranks(tmp_path):
    placed = place(LLAMA, "attention.q:3 + attention.v:5", rank=4, alpha=8)
    (tmp_path / "saved.json").write_text(json.dumps(placed.to_json()))
    again = place(LLAMA, "file(saved.json)", rank=4, alpha=8, root=tmp_path)
    assert again == placed
    assert again.digest == placed.digest


def test_a_rank_in_the_rule_goes_before_the_ranks_of_the_file(tmp_path):
    (tmp_path / "saved.json").write_text(json.dumps(place(LLAMA, "attention:3").to_json()))
    placed = place(LLAMA, "file(saved.json):7 + head:2", root=tmp_path)
    assert {adapter.rank for adapter in placed.adapters} == {7, 2}
    rest = place(LLAMA, "all - file(saved.json)", rank=9, root=tmp_path)
    assert rest == place(LLAMA, "feed_forward", rank=9)


def test_two_files_may_not_disagree_on_a_rank(tmp_path):
    path = "lm_head"
    save(tmp_path, [{"path": path, "rank": 2, "alpha": 4}], "a.json")
    save(tmp_path, [{"path": path, "rank": 3, "alpha": 4}], "b.json")
    with pytest.raises(PlacementError, match="give lm_head different ranks"):
        place(LLAMA, "file(a.json) | file(b.json)", root=tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no placement"),
        ([{"path": "lm_head", "rank": 0, "alpha": 1}], "a rank from 1 to 65536"),
        ([{"path": "lm_head", "rank": True, "alpha": 1}], "a rank from 1 to 65536"),
        ([{"path": "lm_head", "rank": 2}], "a positive alpha"),
        (["lm_head"], "an adapter has a path"),
        ([{"path": "lm_heat", "rank": 2, "alpha": 1}], "1 of 1 sites are not in llama, first"),
        ([{"path": "lm_heat", "rank": 2, "alpha": 1}], "did you mean lm_head?"),
        ([{"path": "lm_head", "rank": 2, "alpha": 1}] * 2, "names lm_head twice"),
    ],
)
def test_a_file_that_does_not_fit_is_told(tmp_path, rows, message):
    save(tmp_path, rows)
    with pytest.raises(PlacementError) as error:
        place(LLAMA, "file(saved.json)", root=tmp_path)
    assert message in str(error.value)
    assert 'file("saved.json")' in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    save(tmp_path, [], "saved.json")
    with pytest.raises(PlacementError, match=r"did you mean saved\.json"):
        place(LLAMA, "file(saves.json)", root=tmp_path)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(PlacementError, match="cannot be read as JSON"):
        place(LLAMA, "file(bad.json)", root=tmp_path)


def test_all_leaves_out_a_bare_parameter_that_nobody_knows():
    """XLNet's attention tensors: PEFT would read their first dimension, the width, as experts."""
    known = anatomies.gpt2(width=32, layers=2)
    unknown = Site(
        path="transformer.h.0.odd",
        stack="decoder",
        layer=0,
        role=Role.parse("other"),
        d_in=8,
        d_out=8,
        num_experts=32,
        kind="expert",
        reason="no pattern of operations is known for it",
    )
    model = replace(known, sites=(*known.sites, unknown))
    assert unknown.path not in place(model, "all").by_path
    assert unknown.path in place(model, "names(odd)").by_path
