"""Study files that are none, or say what cannot be."""

from bad_input.case import LONG, PLAN, RUN, STUDY, Case, Spoil, both, edit, write

_BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join([f'*{chr(97 + level)}'] * 9)}]\n"
    for level in range(9)
)


def _file(name: str, content: str | bytes, says: str, **rest: float) -> Case:
    return Case(name=name, given=write(STUDY, content), asked=RUN, says=f"{STUDY}:{says}", **rest)


def _key(name: str, old: str, new: str, says: str) -> Case:
    """A value or key that is refused with the file's name and line."""
    return Case(name=name, given=edit((old, new)), asked=RUN, says=f"{STUDY}:{says}")


def _rule(name: str, rule: str, says: str) -> Case:
    """A rule that can be read and does not fit the model."""
    return Case(
        name=name,
        given=edit(("attention: attention", f"attention: '{rule}'")),
        asked=RUN,
        says=f"{STUDY}:12: placements.attention: {says}",
    )


def _planned(name: str, given: Spoil, says: str) -> Case:
    """What is found where placements meet their model."""
    return Case(name=name, given=given, asked=RUN, says=says)


_HYBRID = ("attention: attention", "attention: {scorer: gradient}")

_FILES = [
    Case(
        name="a file name that is nearly right",
        asked=("run", "studi.yaml"),
        says="studi.yaml: there is no such file (did you mean study.yaml?)",
    ),
    Case(
        name="a folder that is not there",
        asked=("run", "no/study.yaml"),
        says="no/study.yaml: there is no such file; the folder no does not exist",
    ),
    Case(
        name="a folder in place of the file",
        asked=("plan", "."),
        says=".: is a folder; give the study file itself; in that folder: study.yaml",
    ),
    Case(name="an empty name", asked=("run", ""), says="is a folder; give the study file itself"),
    Case(
        name="a name of 300 characters",
        asked=("run", f"{LONG}.yaml"),
        says="aaa... cannot be read: File name too long",
    ),
    _file("an empty file", "", "1: the file is empty; a study file begins with `name: ...`"),
    _file("a list", "- a\n- b\n", "1: the file holds a list; a study file is a mapping"),
    _file("an open bracket", "name: [a\n", "1: cannot be read as YAML: a bracket or a quotation"),
    _file("a tab", "name: a\n\tmodel: b\n", "2: cannot be read as YAML: a tab stands where spaces"),
    _file("Latin-1", b"name: caf\xe9\n", "1: the file is not UTF-8; save it as UTF-8"),
    _file("UTF-16", "name: a\n".encode("utf-16"), "1: the file is UTF-16; save it as UTF-8"),
    _file(
        "control characters", b"\x00\x01\x02", "1: holds a control character, which YAML refuses"
    ),
    _file("brackets a hundred deep", "{" * 100, "1: nested deeper than any study"),
    _file("an anchor", "a: &a [b]\nc: *a\n", "1: anchors (&) and aliases (*) are not read"),
    _file("an alias bomb", _BOMB, "1: anchors (&) and aliases (*) are not read", seconds=30),
    _file("a tag", "name: !!python/object:os.system x\n", "1: tags (!) are not read; write the"),
    _file("a directive", "%YAML 1.1\n---\nname: a\n", "...directives (%) are not read"),
    _file("a second document", "name: a\n---\nname: b\n", "2: cannot be read as YAML: a second"),
    _file("a megabyte", "name: a\n#" + "x" * 1_000_000, " is larger than 1000000 bytes"),
]

_KEYS = [
    _key(
        "lr in place of learning_rate",
        "learning_rate: 1e-2",
        "lr: 1e-4",
        "15: training.lr: this key is not known (did you mean learning_rate?)",
    ),
    _key(
        "a misspelt key",
        "seeds: 2",
        "sedes: 2",
        "16: sedes: this key is not known (did you mean seeds?)",
    ),
    _key("a key twice", "seeds: 2", "seeds: 2\nseeds: 3", "17: seeds: this key is given twice"),
    _key("a key missing", "name: tiny\n", "", "1: name: this key is missing"),
    _key(
        "no placements",
        "placements:\n  full: all\n  attention: attention\nbaseline: full\n",
        "",
        "1: placements: this key is missing",
    ),
    _key(
        "placements without one",
        "placements:\n  full: all\n  attention: attention\nbaseline: full",
        "placements: {}",
        "10: placements: ",
    ),
    _key(
        "rank 0", "rank: 2", "rank: 0", "14: lora.rank: 0 is too small; a rank is an integer from"
    ),
    _key("rank -1", "rank: 2", "rank: -1", "14: lora.rank: -1 is too small; a rank is an integer"),
    _key("rank 8.5", "rank: 2", "rank: 8.5", "14: lora.rank: 8.5 is not a whole number"),
    _key('rank "8"', "rank: 2", 'rank: "8"', '14: lora.rank: "8" is text, not a number (take the'),
    _key("rank true", "rank: 2", "rank: true", "14: lora.rank: true is not a number"),
    _key(
        "a rank of 5000 digits", "rank: 2", f"rank: {'9' * 5000}", "14: lora.rank: 9999...cannot be"
    ),
    _key("alpha inf", "alpha: 4", "alpha: .inf", "14: lora.alpha: .inf is not a finite number"),
    _key(
        "a rate of NaN", "1e-2", ".nan", "15: training.learning_rate: .nan is not a finite number"
    ),
    _key(
        "a rate of inf", "1e-2", ".inf", "15: training.learning_rate: .inf is not a finite number"
    ),
    _key("a rate below zero", "1e-2", "-1e-2", "15: training.learning_rate: -1e-2 is too small"),
    _key(
        "a rate beyond a float",
        "1e-2",
        "1e999",
        "15: training.learning_rate: 1e999 is not a finite",
    ),
    _key("a rate twice", "1e-2", "[1e-2, 0.01]", "15: training.learning_rate: 0.01 is given twice"),
    _key("a batch of true", "batch: 4", "batch: true", "15: training.batch: true is not a number"),
    _key(
        "warm-up longer than the training",
        "steps: 3",
        "steps: 3, warmup: 9",
        "15: training: warmup has 9 steps, more than the 3 steps",
    ),
    _key("a seed twice", "seeds: 2", "seeds: [1, 1]", "16: seeds: 1 is given twice"),
    _key("no seed", "seeds: 2", "seeds: []", "16: seeds: a list without an entry; at least one is"),
    _key("zero seeds", "seeds: 2", "seeds: 0", "16: seeds: 0 is too small; seeds are a number"),
    _key("seeds in words", "seeds: 2", "seeds: two", "16: seeds: two is text, not a number"),
    _key(
        "a later version",
        "model: ",
        "version: 9\nmodel: ",
        "2: version: 9 is newer than this",
    ),
    _key(
        "a later feature", "seeds: 2", "seeds: 2\nsearch: {trials: 9}", "17: search: a search over"
    ),
    _key("a format misspelt", "prompt_completion", "promt_completion", "5: data.format"),
    _key(
        "a measure that is none",
        "seeds: 2",
        "seeds: 2\nmeasures: [accuracy]",
        "17: measures[0]: accuracy is not known; allowed: loss, forgetting, lm_eval:TASK",
    ),
    _key(
        "forgetting without a text",
        "seeds: 2",
        "seeds: 2\nmeasures: [forgetting]",
        "17: measures[0]: needs a general text for a model that is not bundled",
    ),
    _key("a margin of 200%", "seeds: 2", "seeds: 2\nmargin: 200%", "17: margin: 200% is too large"),
    _key(
        "a tracker that is none",
        "seeds: 2",
        "seeds: 2\ntrack: [wandd]",
        "17: track[0]: wandd is not",
    ),
    _key(
        "a claim that cannot be read",
        "seeds: 2",
        "seeds: 2\nhypothesis: {full: best}",
        "17: hypothesis.full: the hypothesis 'best' cannot be read; write 'at least 95% of",
    ),
    _key(
        "trust given twice",
        "model: model",
        "model: {name: model, trust_remote_code: false}\ntrust_remote_code: true",
        "3: trust_remote_code: contradicts model.trust_remote_code on",
    ),
    Case(
        name="several faults at once",
        given=edit(("rank: 2", "rank: 0"), ("batch: 4", "batch: none"), ("seeds: 2", "sead: 2")),
        asked=RUN,
        says="study.yaml:14: lora.rank: 0 is too small...study.yaml:15: training.batch: none is "
        "text...study.yaml:16: sead: this key is not known",
    ),
    Case(
        name="a task that lm_eval does not know",
        given=edit(("seeds: 2", 'seeds: 2\nmeasures: ["lm_eval:gsm8"]')),
        asked=RUN,
        says="measures: lm_eval:gsm8: lm_eval knows no such task (did you mean gsm8k?)",
    ),
]

_PLACEMENTS = [
    _key(
        "an unknown baseline",
        "baseline: full",
        "baseline: ful",
        "13: baseline: ful is not one of the placements (did you mean full?)",
    ),
    _key("an empty placement", "full: all", 'full: ""', '11: placements.full: "" is empty; a'),
    _key("a placement of nothing", "full: all", "full:", "11: placements.full: nothing is given"),
    _key(
        "names that differ by case",
        "attention: attention",
        "Full: attention",
        "12: placements.Full: is full on line 11 in another case; choose another name",
    ),
    _key("a rule that ends early", "full: all", "full: (all", "11: placements.full: the rule ends"),
    _key("an unknown word", "full: all", "full: attenton", "11: placements.full: unknown word"),
    _key(
        "a hyphen",
        "full: all",
        "full: feed-forward",
        "11: placements.full: unknown word feed-forward (did you mean feed_forward?)",
    ),
    _key(
        "rank 0 in a rule", "full: all", "full: all:0", "11: placements.full: a rank is a positive"
    ),
    _key(
        "indices and shares",
        "full: all",
        'full: "all @ layers(0, 50%..)"',
        "11: placements.full: one list of layers holds indices or percentages, not both",
    ),
    _key(
        "a rule torn at its comma",
        "full: all",
        "full: {rule: all @ layers(0, 1)}",
        "11: placements.full.1): this key has no value; quote this rule, because it holds a",
    ),
    _key(
        "a rule of a thousand operators",
        "full: all",
        f"full: all{' | all' * 1000}",
        "11: placements.full: the rule has more than 150 operators in a row",
    ),
    _key(
        "a baseline that is learned",
        "full: all",
        "full: {scorer: gradient}",
        "11: placements.full: the baseline is a rule: the others are matched to its parameters",
    ),
    _key(
        "a scorer that is none",
        *_HYBRID[:1],
        "attention: {scorer: gradeint}",
        "12: placements.attention: gradeint: there is no such method (did you mean gradient?)",
    ),
    _key(
        "a policy that is none",
        *_HYBRID[:1],
        "attention: {policy: salience}",
        "12: placements.attention: ...(did you mean saliency?)",
    ),
    _key(
        "a policy by the reference engine",
        *_HYBRID[:1],
        "attention: {policy: saliency}\nengine: reference",
        "12: placements.attention.policy: a placement that moves needs the packed engine",
    ),
    _rule(
        "a layer that is not there", "all @ layers(2, 3)", "layer 3 is not there: the decoder of"
    ),
    _rule("a layer before the first", "all @ layers(-4)", "layer -4 is not there: the decoder of"),
    _rule("layers backwards", "all @ layers(-1..0)", "layers -1..0 run backwards: the decoder of"),
    _rule("more layers than there are", "all @ last(4)", "last(4) asks for more layers than there"),
    _rule(
        "a stack that is not there", "all @ encoder", "...has no encoder; its stacks are decoder"
    ),
    _rule(
        "a name that is nearly right",
        "names(c_atn)",
        "names(c_atn) matches no site...(did you mean c_attn?)",
    ),
    _rule("a list of which half matches", "names(c_attn, nope)", "names(nope) matches no site of"),
    _rule("a role that is not there", "router", "the rule router selects no site. router: "),
    _rule(
        "a part of a fused map", "attention.q", "the rule attention.q selects no site...fuses q, k"
    ),
    _rule(
        "a rule that matches nothing", "all - all", "the rule all - all selects no site...nothing"
    ),
    _rule("parts that overlap", "all + attention:3", "the parts all and attention:3 overlap in 6"),
    _rule(
        "a file that is not there",
        "file(nope.json)",
        'file("nope.json"): ...nope.json: there is no such file',
    ),
    Case(
        name="a catastrophic glob",
        given=edit(("attention: attention", f"attention: names({'*a' * 40}*X)")),
        asked=PLAN,
        says="study.yaml:12: placements.attention: names(*a*a...matches no site",
        seconds=30,
    ),
    _planned(
        "a budget below the smallest placement",
        edit((_HYBRID[0], "attention: {scorer: gradient, budget: 5}")),
        "study.yaml:12: placements.attention: a budget of 5 parameters is below the smallest",
    ),
    _planned(
        "a budget above the largest placement",
        edit((_HYBRID[0], "attention: {scorer: gradient, budget: 999999999}")),
        "study.yaml:12: placements.attention: a budget of 999,999,999 parameters is above the",
    ),
    Case(
        name="a schedule longer than the training",
        given=edit((_HYBRID[0], "attention: {policy: saliency, warmup: 50}")),
        asked=RUN,
        says="study.yaml...placements.attention: ",
    ),
]

_DEFINED = [
    Case(
        name="a byte order mark",
        given=lambda folder: write(STUDY, b"\xef\xbb\xbf" + (folder / STUDY).read_bytes())(folder),
        asked=(*PLAN, "--json"),
        says='"num_trials": 4',
        code=0,
        why="UTF-8 with its mark is UTF-8",
    ),
    Case(
        name="a rate of 1e-4",
        given=edit(("1e-2", "1e-4")),
        asked=(*PLAN, "--json"),
        says='"num_trials": 4',
        code=0,
        why="YAML 1.2 reads it as a number, 1.1 as text",
    ),
    Case(
        name="a rank above both dimensions",
        given=edit(("rank: 2", "rank: 64")),
        asked=PLAN,
        says="rank-exceeds-dimension",
        code=0,
        why="it trains; a warning says that the rank is above the smaller dimension",
    ),
    Case(
        name="rows that cannot be read, in a plan",
        given=both(edit(("rows.jsonl", "row.jsonl"))),
        asked=PLAN,
        says="the rows cannot be read (row.jsonl: no such file",
        code=0,
        why="a plan takes every row at its longest and says so; the run is refused",
    ),
]

CASES = [*_FILES, *_KEYS, *_PLACEMENTS, *_DEFINED]
