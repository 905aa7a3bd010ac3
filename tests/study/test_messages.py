from collections.abc import Callable
from pathlib import Path

import pytest

from loratlas.errors import StudyError
from loratlas.study.problems import MAX_PROBLEMS
from loratlas.study.spec import parse_study

Refusal = Callable[..., str]
RANK = "a rank is an integer from 1 up (to 65536)"
RATE = "a learning rate is a number above 0"
SEEDS = "seeds are a number of seeds from 1 to 1000, or a list of different seeds"
ONE_OR_MORE = "at least one is needed"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", f"0 is too small; {RANK}"),
        ("-1", f"-1 is too small; {RANK}"),
        ("8.5", f"8.5 is not a whole number; {RANK}"),
        ("8.0", f"8.0 is not a whole number; {RANK}"),
        ('"8"', f'"8" is text, not a number (take the quotes away); {RANK}'),
        ("eight", f"eight is text, not a number; {RANK}"),
        ("true", f"true is not a number; {RANK}"),
        (".nan", f".nan is not a whole number; {RANK}"),
        ("[8]", f"a list is not a number; {RANK}"),
        ("", f"nothing is given; {RANK}"),
    ],
)
def test_ranks(refusal: Refusal, value: str, message: str):
    assert refusal(("lora: {rank: 16,", f"lora: {{rank: {value},")) == (
        f"study.yaml:20: lora.rank: {message}"
    )
    in_placement = refusal(("full: all", f"full: {{rule: all, rank: {value}}}"))
    assert in_placement == f"study.yaml:13: placements.full.rank: {message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (".nan", f": .nan is not a finite number; {RATE}"),
        (".inf", f": .inf is not a finite number; {RATE}"),
        ("1e999", f": 1e999 is not a finite number; {RATE}"),
        ("-1e-4", f": -1e-4 is too small; {RATE}"),
        ("0", f": 0 is too small; {RATE}"),
        ('"1e-4"', f': "1e-4" is text, not a number (take the quotes away); {RATE}'),
        ("true", f": true is not a number; {RATE}"),
        ("[]", f": a list without an entry; {ONE_OR_MORE}"),
        ("[1e-4, .inf]", f"[1]: .inf is not a finite number; {RATE}"),
        ("[1e-4, 1e-4]", ": 0.0001 is given twice; each entry of the list is given once"),
    ],
)
def test_learning_rates(refusal: Refusal, value: str, message: str):
    change = ("[1e-4, 2e-4, 4e-4]", value)
    assert refusal(change) == f"study.yaml:26: training.learning_rate{message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", f": 0 is too small; {SEEDS}"),
        ("1000000000", f": 1000000000 is too large; {SEEDS}"),
        ("six", f": six is text, not a number; {SEEDS}"),
        ("true", f": true is not a number; {SEEDS}"),
        ("2.5", f": 2.5 is not a whole number; {SEEDS}"),
        ("[]", f": a list without an entry; {ONE_OR_MORE}"),
        ("[1, 2, 1]", ": 1 is given twice; each entry of the list is given once"),
        ("[0, -1]", "[1]: -1 is too small; a seed is an integer from 0 up (below 2^32)"),
        ("[0, true]", "[1]: true is not a number; a seed is an integer from 0 up (below 2^32)"),
    ],
)
def test_seeds(refusal: Refusal, value: str, message: str):
    assert refusal(("seeds: 6", f"seeds: {value}")) == f"study.yaml:33: seeds{message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("scheduler: cosine", "lr: 1e-4"),
            "27: training.lr: this key is not known (did you mean learning_rate?); known here: "
            "epochs, steps, batch, accumulation, learning_rate, scheduler, warmup, weight_decay, "
            "clip, base_dropout, dtype",
        ),
        (
            ("match: parameters", "lr: 1e-4"),
            "21: lr: this key is not known (did you mean training.learning_rate?); known here: "
            "version, name, model,",
        ),
        (
            ("epochs: 3", "epoch: 3"),
            "23: training.epoch: this key is not known (did you mean epochs?)",
        ),
        (
            ("match: parameters", "rank: 3"),
            "21: rank: this key is not known (did you mean lora.rank?)",
        ),
        (
            ("full: all", "full: {rule: all, rnk: 3}"),
            "13: placements.full.rnk: this key is not known (did you mean rank?); known here: "
            "rule, rank, match",
        ),
        (
            ("format: alpaca", "formt: alpaca"),
            "6: data.formt: this key is not known (did you mean format?)",
        ),
        (
            ("source: tatsu-lab/alpaca", "source: {train: a, tests: b}"),
            "5: data.source.tests: this key is not known (did you mean test?); known here: "
            "train, validation, test",
        ),
        (("  format: alpaca\n", ""), "4: data.format: this key is missing"),
        (("name: where-on-alpaca\n", ""), "2: name: this key is missing"),
        (("full: all", "full: {match: none}"), "13: placements.full.rule: this key is missing"),
        (
            ("lora: {rank: 16, alpha: 32, scaling: constant, dropout: 0.0}", "lora: 16"),
            "20: lora: 16 is not a mapping; it has the keys: rank, alpha, scaling, dropout",
        ),
        (
            ("lora: {rank: 16, alpha: 32, scaling: constant, dropout: 0.0}", "lora:"),
            "20: lora: nothing is given; it has the keys: rank, alpha, scaling, dropout",
        ),
        (
            ("match: parameters", "lora: {}"),
            "21: lora: this key is given twice (first on line 20)",
        ),
    ],
)
def test_keys(refusal: Refusal, change: tuple[str, str], message: str):
    text = refusal(change)
    assert text.startswith(f"study.yaml:{message}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("cosine", "cosin"),
            "27: training.scheduler: cosin is not known (did you mean cosine?); allowed: linear, "
            "cosine, constant",
        ),
        (
            ("format: alpaca", "format: alpacca"),
            "6: data.format: alpacca is not known (did you mean alpaca?); allowed: alpaca, "
            "prompt_completion, text, messages, gsm8k, classification",
        ),
        (
            ("scaling: constant", "scaling: 2"),
            "20: lora.scaling: 2 is not known; allowed: constant, alpha/r, rslora",
        ),
        (
            ("match: parameters", "match: null"),
            "21: match: nothing is given; allowed: parameters, none",
        ),
        (
            ("match: parameters", "device: gpu"),
            "21: device: gpu is not known (did you mean cpu?); allowed: auto, cpu, cuda, mps",
        ),
        (
            ("match: parameters", "trust_remote_code: yes"),
            "21: trust_remote_code: yes is not known; allowed: true, false",
        ),
        (
            ("[loss]", "[los]"),
            "35: measures[0]: los is not known (did you mean loss?); allowed: loss, forgetting, "
            "lm_eval:TASK",
        ),
        (
            ("[loss]", "[forgetting]"),
            "35: measures[0]: needs a general text for a model that is not bundled: "
            "{task: forgetting, source: FILE}",
        ),
        (
            ("[loss]", "[{task: forgetting, source: a.txt, row: 3}]"),
            "35: measures[0].row: this key is not known (did you mean rows?); known here: task, "
            "source, format, rows, max_length",
        ),
        (
            ("[loss]", '[{task: "lm_eval:gsm8k", shot: 3}]'),
            "35: measures[0].shot: this key is not known (did you mean shots?); known here: task, "
            "source, rows, shots, max_new_tokens, batch",
        ),
        (
            ("[loss]", "[{task: gsm8k}]"),
            "35: measures[0].task: gsm8k cannot be used; a task is lm_eval: and a name that "
            "lm_eval knows, such as lm_eval:gsm8k",
        ),
        (
            ("[loss]", '["lm_eval:gsm8k", {task: "lm_eval:gsm8k", shots: 3}]'),
            "35: measures: lm_eval:gsm8k is given twice; each entry of the list is given once",
        ),
        (("[loss]", "loss"), "35: measures: loss is not a list; write it as [...]"),
        (("[loss]", "[]"), f"35: measures: a list without an entry; {ONE_OR_MORE}"),
        (
            ("baseline: full", "baseline: ful"),
            "19: baseline: ful is not one of the placements (did you mean full?); allowed: full, "
            "attention, upper_half, two_ranks, as_published, parts_form",
        ),
        (
            ("name: where", "version: 2\nfoo: 1\nname: where"),
            "2: version: 2 is newer than this loratlas reads (1); update loratlas",
        ),
        (("name: where", "version: 0\nname: where"), "2: version: 0 is not known; allowed: 1"),
    ],
)
def test_words(refusal: Refusal, change: tuple[str, str], message: str):
    assert refusal(change) == f"study.yaml:{message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch: 4", "batch: 0"), "24: training.batch: 0 is too small; an integer from 1 up is"),
        (("epochs: 3", "epochs: 0"), "23: training.epochs: 0 is too small; a number above 0 is"),
        (("warmup: 0.1", "warmup: -1"), "28: training.warmup: -1 is too small; a number from 0"),
        (
            ("warmup: 0.1", "warmup: 1.5"),
            "22: training: warmup is 1.5; allowed: a share below 1, or a whole number of steps",
        ),
        (
            ("warmup: 0.1", "warmup: 20\n  steps: 10"),
            "22: training: warmup has 20 steps, more than the 10 steps of the training",
        ),
        (("base_dropout: 0", "base_dropout: 1"), "31: training.base_dropout: 1 is too large; a dr"),
        (("alpha: 32", "alpha: -.inf"), "20: lora.alpha: -.inf is not a finite number; a number a"),
        (("train: 1000", "train: 0"), "7: data.train: 0 is too small; a number of rows is an"),
        (("test: 500", 'test: "500"'), '9: data.test: "500" is text, not a number (take the quot'),
        (("max_length: 256", "max_length: 1"), "11: data.max_length: 1 is too small; a number of"),
        (("loss_on: response", "split_seed: -1"), "10: data.split_seed: -1 is too small; a seed"),
        (("margin: 5%", "margin: 5"), "36: margin: 5 is too large; a margin is a share above 0 an"),
        (("margin: 5%", "margin: 0%"), "36: margin: 0% is too small; a margin is a share above 0"),
        (("margin: 5%", "margin: five"), "36: margin: five is text, not a number; a margin is a"),
        (
            ("sweep_seeds: 2", "sweep_seeds: 7"),
            "34: sweep_seeds: 7 is more than the seeds of the study; allowed: 1 to 6",
        ),
        (
            ("model: microsoft/DialoGPT-medium", "model: {name: a/b, revision: 1234567}"),
            "3: model.revision: 1234567 is not text (put quotes around it); 1 to 300 characters",
        ),
        (
            ("model: microsoft/DialoGPT-medium", "model: demo:gpt3"),
            "3: model: demo:gpt3: no such bundled model (did you mean demo:gpt2?)",
        ),
        (
            ("source: tatsu-lab/alpaca", "source: {train: a}\n  revision: v1"),
            "4: data: config and revision are for a data set on the hub; files have neither",
        ),
        (
            (
                "model: microsoft/DialoGPT-medium",
                "model: {name: a/b, trust_remote_code: true}\ntrust_remote_code: false",
            ),
            "4: trust_remote_code: contradicts model.trust_remote_code on line 3; give it once",
        ),
    ],
)
def test_values(refusal: Refusal, change: tuple[str, str], message: str):
    text = refusal(change)
    assert text.startswith(f"study.yaml:{message}")
    assert "\n" not in text


@pytest.mark.parametrize("name", ["../../x", "/etc/x", ".hidden", "a b", "x" * 65, "é", "a/b"])
def test_study_names_are_safe_as_file_names(refusal: Refusal, name: str):
    text = refusal(("where-on-alpaca", name))
    assert text.startswith("study.yaml:2: name: ")
    assert text.endswith(
        "cannot be used; the name of a study is 1 to 64 letters, digits, dots, dashes and "
        "underscores, and begins with a letter or a digit"
    )


def test_control_characters_do_not_reach_the_terminal(refusal: Refusal):
    text = refusal(("where-on-alpaca", r'"\e[31mred\e[0m"'), ("full: all", r'"f\e[2J": all'))
    assert "\x1b" not in text
    assert r'study.yaml:2: name: "\x1b[31mred\x1b[0m" cannot be used' in text
    assert r"study.yaml:13: placements.f\x1b[2J: the name of a placement is 1 to 64" in text


def test_all_faults_are_said_at_once_by_line(edit: Callable[..., str]):
    text = edit(
        ("batch: 4", "batch: 0"),
        ("rank: 16,", "rank: 8.5,"),
        ("full: all", "full: {scorer: gradiant}"),
        ("name: where", "name: ../where"),
        ("all @ layers(50%..)", "attn"),
        ("baseline: full", "baseline: fool"),
    )
    with pytest.raises(StudyError) as caught:
        parse_study(text, Path("study.yaml"))
    starts = [line.split(": ")[:2] for line in str(caught.value).split("\n")]
    assert starts == [
        ["study.yaml:2", "name"],
        ["study.yaml:13", "placements.full"],
        ["study.yaml:15", "placements.upper_half"],
        ["study.yaml:19", "baseline"],
        ["study.yaml:20", "lora.rank"],
        ["study.yaml:24", "training.batch"],
    ]


def test_a_file_of_faults_does_not_flood_the_terminal(edit: Callable[..., str]):
    text = edit(("match: parameters\n", "".join(f"zzz{i}: 1\n" for i in range(50))))
    with pytest.raises(StudyError) as caught:
        parse_study(text, Path("study.yaml"))
    lines = str(caught.value).split("\n")
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == "study.yaml: and 30 more"
