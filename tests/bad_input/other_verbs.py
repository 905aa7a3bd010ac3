"""What `score`, `audit`, `recommend` and the options of every verb may be asked."""

from bad_input.case import SCORE, STUDY, Case, remove

_HUGE = "9" * 400


def _score(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=("score", STUDY, *asked), says=says)


def _explain(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=("audit", "--explain", *asked), says=says)


def _said(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=asked, says=says)


def _usage(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=asked, says=says, usage=True)


_SCORINGS = [
    Case(
        name="no study", asked=("score",), says="give a study file, whose model and training rows"
    ),
    _score(
        "a method that is none",
        ("--method", "gradeint"),
        "gradeint: there is no such method (did you mean gradient?)",
    ),
    _score(
        "more rows than there are", ("--rows", "99"), "study.yaml: 99 rows are to be scored, and"
    ),
    _score(
        "one row", ("--rows", "1"), "study.yaml: 1 rows are to be scored, and there are 32 training"
    ),
    _score(
        "sites that are not there", ("--only", "cross_attention"), "the sites to score: the rule"
    ),
    _score(
        "an option without a value", ("--option", "rank"), "--option rank: write NAME=VALUE, such"
    ),
    _score(
        "an option of no method", ("--option", "rank=2"), "gradient has no option rank; it has none"
    ),
    _score(
        "a null that is none",
        ("--null", "label"),
        "--null label: there is no such (did you mean labels?)",
    ),
    _score(
        "a null that says nothing",
        ("--method", "plop", "--null", "labels"),
        "plop cannot be held against the null labels",
    ),
    _score(
        "groups for a method without", ("--by", "role"), "--by: gradient does not take it; it is"
    ),
    _score(
        "rows for a method that trains",
        ("--method", "add_one_in", "--rows", "8"),
        "--rows: add_one_in does not take it",
    ),
    _score(
        "groups that are none",
        ("--method", "add_one_in", "--by", "roles"),
        "--by roles: there is no such (did you mean role?)",
    ),
    _score(
        "scores in place of a folder",
        ("--method", "depth", "--out", "model"),
        "--out model: is a folder; give a file",
    ),
    _usage("a seed of 400 digits", (*SCORE, "--seed", _HUGE), "Invalid value for '--seed'"),
]

_AUDITS = [
    _said(
        "four figures without --explain",
        ("audit", "3.0", "20", "demo:gpt2", "demo:facts"),
        "audit takes one run folder, not 4 arguments (--explain is missing?)",
    ),
    _said("rows of a run", ("audit", "run", "--rows", "3"), "--rows belongs to --explain"),
    _explain(
        "two figures alone", ("3.0", "20"), "audit --explain takes LOSS PERPLEXITY MODEL DATA"
    ),
    _explain(
        "a loss in words", ("x", "20", "demo:gpt2", "demo:facts"), "LOSS: a number such as 3.089"
    ),
    _explain(
        "a loss of NaN", ("nan", "20", "demo:gpt2", "demo:facts"), "LOSS: a finite number such as"
    ),
    _usage(
        "a loss below 0",
        ("audit", "--explain", "-1", "20", "demo:gpt2", "demo:facts"),
        "No such",
    ),
    _explain("a perplexity of 0", ("3", "0", "demo:gpt2", "demo:facts"), "PERPLEXITY: at least 1"),
    _explain(
        "a model that is none", ("3", "9", "demo:gpt3", "demo:facts"), "no such bundled model"
    ),
    _explain("a task that is none", ("3", "9", "demo:gpt2", "demo:fact"), "did you mean facts?"),
    _explain(
        "a format that is none",
        ("3", "9", "demo:gpt2", "demo:facts", "--format", "alpacca"),
        "--format alpacca: no format that holds text to score (did you mean alpaca?)",
    ),
    _explain(
        "one token of a row",
        ("3", "9", "demo:gpt2", "demo:facts", "--max-length", "1"),
        "--max-length 1: at least 2 tokens",
    ),
    _explain(
        "scored tokens that are none",
        ("3", "9", "demo:gpt2", "demo:facts", "--loss-on", "respons"),
        "did you mean response?",
    ),
    _explain(
        "a study beside --explain",
        ("3", "9", "demo:gpt2", "demo:facts", "--study", "a"),
        "--study belongs to the audit of a run",
    ),
]

_OPTIONS = [
    _said(
        "a table that is none",
        ("results", "run", "--table", "fuonding"),
        "--table fuonding: there is no such table (did you mean founding?)",
    ),
    _said(
        "memory in words",
        ("run", STUDY, "--prefix-memory", "much"),
        "--prefix-memory much: write a",
    ),
    _said(
        "a file below 0",
        ("run", STUDY, "--prefix-file", "-1"),
        "--prefix-file -1: write a size",
    ),
    _said("no size", ("run", STUDY, "--prefix-file", ""), "--prefix-file : write a size such as"),
    _said(
        "a unit that is none",
        ("run", STUDY, "--prefix-file", "64 MiC"),
        "--prefix-file 64 MiC: 'MiC' is no unit (did you mean MiB?)",
    ),
    _said(
        "memory beyond a float",
        ("run", STUDY, "--prefix-memory", "1e308TB"),
        "--prefix-memory 1e308TB: write a number from 0 up",
    ),
    _said(
        "parameters of 0",
        ("recommend", "run", "--max-parameters", "0"),
        "--max-parameters 0: write a number above 0",
    ),
    _said(
        "parameters beyond a float",
        ("recommend", "run", "--max-parameters", "1e308B"),
        "--max-parameters 1e308B: write a number above 0",
    ),
    _said(
        "seconds of NaN",
        ("recommend", "run", "--max-seconds", "nan"),
        "--max-seconds nan: write a time such as 90",
    ),
    _said(
        "no seconds", ("recommend", "run", "--max-seconds", ""), "--max-seconds : write a time such"
    ),
    _said(
        "an increase below 0",
        ("recommend", "run", "--max-loss-increase", "-1"),
        "--max-loss-increase -1: write 0.02 (nats per token) or 5%",
    ),
    _said(
        "seconds beyond a float",
        ("recommend", "run", "--max-seconds", "1e308h"),
        "--max-seconds 1e308h: write a number above 0",
    ),
    _said(
        "memory in half a unit",
        ("recommend", "run", "--max-memory", "2G"),
        "--max-memory 2G: 'G' is no unit (did you mean GB?)",
    ),
    _said(
        "a loss of all that was gained",
        ("recommend", "run", "--max-loss-increase", "100%"),
        "--max-loss-increase 100%: a share of the baseline's gain is below 100%",
    ),
    Case(
        name="steps timed on rows that are not there",
        given=remove("rows.jsonl"),
        asked=("plan", STUDY, "--calibrate"),
        says="study.yaml: nothing can be timed on every row at its longest",
    ),
    _usage("a verb that is none", ("anatmy",), "No such command 'anatmy'. Did you mean 'anatomy'?"),
    _usage("no model", ("anatomy",), "Missing argument 'MODEL'"),
    _usage("nothing to run", ("run",), "Missing argument 'STUDY'"),
    _usage("an option that is none", ("anatomy", "demo:gpt2", "--jsn"), "No such option: --jsn"),
    _usage(
        "a rank in words",
        ("place", "demo:gpt2", "all", "--rank", "x"),
        "Invalid value for '--rank'",
    ),
    _usage("a rank of 400 digits", ("place", "model", "all", "--rank", _HUGE), "Invalid value for"),
    _usage(
        "a scaling that is none",
        ("place", "demo:gpt2", "all", "--scaling", "rslor"),
        "'rslor' is not one of",
    ),
    _usage("two runs", ("status", "a", "b"), "Got unexpected extra argument"),
    _usage("a pack of 0", ("run", STUDY, "--pack", "0"), "Invalid value for '--pack'"),
    _usage("a pack of 1.5", ("run", STUDY, "--pack", "1.5"), "Invalid value for '--pack'"),
    _usage(
        "a window of one token", ("audit", "run", "--window", "1"), "Invalid value for '--window'"
    ),
]

CASES = [*_SCORINGS, *_AUDITS, *_OPTIONS]
