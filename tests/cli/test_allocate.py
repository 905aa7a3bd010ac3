"""``loratlas allocate``: what it prints and writes, and what it refuses in one message."""

import json
import subprocess
import sys

import pytest

from loratlas.allocate.budget import Budget
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.anatomy.read import read
from loratlas.cli.quantities import parse_budget, parse_ranks
from loratlas.errors import RequestError


@pytest.fixture
def scores(tmp_path, anatomy):
    """Writes scores of the sites inside the blocks, changed where the test wants it."""

    def write(name="scores.json", **changes):
        inside = [site for site in anatomy.sites if site.in_block]
        table = ScoreTable(
            method="by_hand",
            unit="1",
            higher_is_better=True,
            model=anatomy.model,
            anatomy_digest=anatomy.digest,
            cost=ScoringCost(num_forwards=8),
            scores=tuple(
                SiteScore(path=site.path, value=1.0 + number) for number, site in enumerate(inside)
            ),
        )
        file = tmp_path / name
        file.write_text(json.dumps({**table.to_json(), **changes}))
        return file

    return write


def test_the_json_is_a_placement_that_place_reads(cli, scores, tiny_folder, tmp_path):
    out = tmp_path / "placed.json"
    said = cli("allocate", scores(), "--budget", "10k", "--rank", 4, "--out", out, "--json")
    assert (said.code, said.err) == (0, "")
    data = said.json
    assert json.loads(out.read_text()) == data
    assert data["budget"] == {"amount": 10_000, "unit": "parameters"}
    assert data["gap"] == 0
    assert data["used"] == data["trainable_parameters"] <= 10_000
    assert (data["method"], data["scorer"]) == ("exact", "by_hand")
    # One scale for all ranks: alpha is twice the rank everywhere.
    assert all(row["alpha"] == 2 * row["rank"] for row in data["placement"])
    rank = data["lora_config"]["r"]
    assert data["lora_config"]["alpha_pattern"] == {
        path: 2 * rank for path, rank in data["lora_config"]["rank_pattern"].items()
    }
    assert data["lora_config"]["lora_alpha"] == 2 * rank

    placed = cli("place", tiny_folder, f'file("{out}")', "--rank", 4, "--json").json
    assert placed["placement"] == data["placement"]
    assert placed["warnings"] == []
    assert cli("diff", tiny_folder, out, f'file("{out}")', "--rank", 4).out.count("no difference")


OF_STUDY = {"lora": {"rank": 4, "alpha": 32.0, "scaling": "constant", "dropout": 0.1}}


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ([], 8),
        # A rank by itself leaves the scale.
        (["--rank", 2], 8),
        (["--alpha", 8], 2),
        (["--rank", 2, "--alpha", 8], 4),
    ],
)
def test_the_scale_is_that_of_the_study_unless_it_is_given(cli, scores, options, scale):
    file = scores(settings=OF_STUDY)
    data = cli("allocate", file, "--budget", "5k", *options, "--json").json
    assert {row["alpha"] / row["rank"] for row in data["placement"]} == {scale}


def test_rank_and_scaling_are_those_of_the_study(cli, scores):
    file = scores(settings={"lora": {**OF_STUDY["lora"], "scaling": "rslora"}})
    data = cli("allocate", file, "--budget", "5k", "--json").json
    assert data["lora_config"]["use_rslora"] is True
    assert {row["alpha"] for row in data["placement"]} == {32}
    plain = cli("allocate", file, "--budget", "5k", "--scaling", "constant", "--json").json
    assert plain["lora_config"]["use_rslora"] is False
    # tau and the highest rank go by the rank of the study, too.
    with_rank = cli("allocate", file, "--budget", "5k", "--rank", 4, "--json").json
    assert with_rank["placement"] == data["placement"]
    one = ["--budget", "16 ranks", "--only", "attention.o @ first(1)", "--json"]
    assert cli("allocate", file, *one).json["placement"][0]["rank"] == 16


@pytest.mark.parametrize("lora", [{"rank": 0}, {"rank": 4, "alpha": "x"}, {"ranks": 4}])
def test_a_study_that_cannot_be(refused, scores, lora):
    said = refused("allocate", scores(settings={"lora": lora}), "--budget", "5k")
    assert said.startswith("settings.lora of the scores cannot be read: ")


def test_a_person_sees_ranks_by_layer_and_role(cli, scores, tmp_path):
    out = tmp_path / "placed.json"
    said = cli("allocate", scores(), "--budget", "40 ranks", "--solver", "greedy", "--out", out)
    assert (said.code, said.err) == (0, "")
    assert "scores by by_hand, greedy: 40 of 40 ranks (100.00%)" in said.out
    assert "shadow price" in said.out
    assert "per rank" in said.out
    assert f'file("{out}")' in said.out
    rows = [line.split() for line in said.out.splitlines() if line.startswith(" decoder")]
    assert [row[:2] for row in rows] == [["decoder", "0"], ["decoder", "1"], ["decoder", "2"]]
    shown = [int(cell) for row in rows for cell in row[2:] if cell != "·"]
    assert sum(shown) == 40
    assert shown == sorted(shown)


def test_every_option_reaches_the_allocator(cli, scores, anatomy):
    options = [
        *("--ranks", "0,2..8", "--max-rank", 6, "--sites", 5, "--scaling", "alpha/r", "--alpha", 3),
        *("--tie", "attention.qkv, attention.o", "--tie-layers", "feed_forward.down"),
        *("--cap", "feed_forward @ last(1)=16 ranks", "--only", "all - feed_forward.up"),
        *("--tau", 2, "--min-rank", 0),
    ]
    data = cli("allocate", scores(), "--budget", "30 ranks", "--json", *options).json
    ranks = {row["path"].removeprefix("transformer.h."): row["rank"] for row in data["placement"]}
    assert {row["alpha"] for row in data["placement"]} == {3.0}
    assert set(ranks.values()) <= {2, 3, 4, 5, 6}
    assert len(ranks) <= 5
    assert not any("c_fc" in path for path in ranks)
    for layer in range(3):
        assert ranks.get(f"{layer}.attn.c_attn") == ranks.get(f"{layer}.attn.c_proj")
    assert len({ranks.get(f"{layer}.mlp.c_proj") for layer in range(3)}) == 1
    only = cli("allocate", scores(), "--budget", "9 ranks", "--json", "--only", "attention").json
    assert all(".attn." in row["path"] for row in only["placement"])


def test_the_proportional_rule_says_what_it_does_to_the_budget(cli, scores):
    said = cli("allocate", scores(), "--budget", "10k", "--solver", "proportional", "--json")
    assert said.json["method"] == "proportional"
    assert "does not keep the budget" in said.json["notes"][0]


def test_it_loads_no_torch(scores, tiny_folder):
    read(str(tiny_folder))  # now it is in the cache
    script = (
        "import sys\nfrom loratlas.cli.main import main\n"
        f"try:\n    main(['allocate', {str(scores())!r}, '--budget', '10k'])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "transformers", "peft"} & set(done.stderr.split())
    assert "utility" in done.stdout


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2M", 2_000_000, "parameters"),
        ("1500000", 1_500_000, "parameters"),
        ("1.5 k", 1500, "parameters"),
        # A product of floats falls below 1001, and below 4,100,000.
        ("1.001k", 1001, "parameters"),
        ("4.1M", 4_100_000, "parameters"),
        ("2b", 2_000_000_000, "parameters"),
        ("12 parameters", 12, "parameters"),
        ("64 ranks", 64, "ranks"),
        ("1 rank", 1, "ranks"),
        ("10MiB", 10 * 2**20, "bytes"),
        ("10 MB", 10_000_000, "bytes"),
        ("800 bytes", 800, "bytes"),
    ],
)
def test_budgets_as_they_are_written(text, amount, unit):
    assert parse_budget(text, "--budget") == Budget(amount=amount, unit=unit)


def test_ranks_as_they_are_written():
    assert parse_ranks("0, 4,8..10", "--ranks") == (0, 4, 8, 9, 10)
    with pytest.raises(RequestError, match="'1000000' is no rank and no range of ranks"):
        parse_ranks("1000000", "--ranks")
