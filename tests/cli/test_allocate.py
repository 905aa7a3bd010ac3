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
    ("options", "message"),
    [
        (["--budget", "10"], "a budget of 10 parameters is below the smallest allocation: with th"),
        (["--budget", "1B"], "a budget of 1,000,000,000 parameters is above the largest allocati"),
        (["--budget", "much"], "--budget much: write 2M or 1500000 for parameters, 64 ranks, or "),
        (["--budget", "64 rnks"], "--budget 64 rnks: 'rnks' is no unit (did you mean ranks?)"),
        (["--budget", "0"], "--budget 0: write a number above 0"),
        (["--budget", "0.5 ranks"], "--budget 0.5 ranks: less than 1 of its unit"),
        (["--budget", "1k", "--ranks", "0,4,x"], "--ranks 0,4,x: 'x' is no rank and no range"),
        (["--budget", "1k", "--ranks", "8..4"], "--ranks 8..4: '8..4' is no rank and no range"),
        (["--budget", "1k", "--ranks", ""], "--ranks : '' is no rank and no range of ranks"),
        (["--budget", "1k", "--cap", "all"], "--cap all: write a rule and what it may take: atte"),
        (["--budget", "1k", "--cap", "all=x"], "--cap all x: write 2M or 1500000 for parameters"),
        (["--budget", "1k", "--cap", "al=5"], "unknown word al (did you mean all?)"),
        (["--budget", "1k", "--tie", "q,x"], "all has no part x; its parts are q, k, v"),
        (["--budget", "1k", "--tie", "q,k"], "the tie all.q | all.k: selects no site. all.q: "),
        (["--budget", "1k", "--only", "router"], "only router: selects no site. router: "),
        (["--budget", "1k", "--min-rank", "9", "--max-rank", "3"], "the highest rank, 3, is below"),
        (["--budget", "1k", "--rank", "0"], "rank is a positive integer, not 0"),
        (["--budget", "1k", "--tau", "nan"], "tau is a finite number above 0, not nan"),
        (["--budget", "1k", "--model", "demo:gpt3"], "demo:gpt3: no such bundled model (did you "),
        (["--budget", "1k", "--model", "demo:gpt2"], "demo:gpt2 has digest "),
    ],
)
def test_requests_that_are_refused(refused, scores, options, message):
    assert message in refused("allocate", scores(), *options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": []}, "the table by by_hand holds no score"),
        (
            {"scores": {}},
            "scores.json: scores is {}, not a list; scores are what `loratlas score S",
        ),
        ({"scores": [{"value": 1}]}, "scores.json: score 1 has no path: {'value': 1}"),
        ({"scores": [{"path": "a"}]}, "scores.json: the score of a has no value"),
        ({"scores": [{"path": "a", "value": 1, "curve": 2}]}, "the curve of a is no list"),
        ({"scores": [{"path": "a", "value": 1}]}, "1 of 1 scored sites are not in "),
        ({"scores": [{"path": "a", "value": float("nan")}]}, "the score of a is nan, not a finite"),
        ({"scores": [{"path": "a", "value": None}]}, "the score of a is None, not a finite number"),
        (
            {"scores": [{"path": "a", "value": 1, "curve": [1, "x"]}]},
            "of a is 'x' at rank 2 of its",
        ),
        ({"anatomy_digest": "0" * 64}, "with digest 000000000000, and "),
        ({"higher_is_better": "yes"}, "scores.json: higher_is_better is 'yes', not a bool"),
        ({"granularity": "sight"}, "granularity is 'sight'; it is one of site, slice, type, layer"),
        ({"cost": {"hours": 3}}, "scores.json: holds no scores (ScoringCost"),
    ],
)
def test_scores_that_are_refused(refused, scores, changes, message):
    assert message in refused("allocate", scores(**changes), "--budget", "1k")


def test_files_that_are_refused(refused, scores, tmp_path):
    scores()
    assert "there is no such file (did you mean scores.json?)" in refused(
        "allocate", tmp_path / "score.json", "--budget", "1k"
    )
    for content, message in (
        ("[]", "holds a list, not scores; scores are what `loratlas score STUDY"),
        ('{"placement": []}', "method is missing; scores are what"),
        ("{", "cannot be read as JSON: "),
    ):
        (tmp_path / "other.json").write_text(content)
        assert message in refused("allocate", tmp_path / "other.json", "--budget", "1k")
    nowhere = tmp_path / "none" / "out.json"
    assert refused("allocate", scores(), "--budget", "9k", "--out", nowhere).endswith(
        "cannot be written: No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2M", 2_000_000, "parameters"),
        ("1500000", 1_500_000, "parameters"),
        ("1.5 k", 1500, "parameters"),
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
