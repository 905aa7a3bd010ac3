"""What is wrong with a request is one message, exit 2, and nothing comes into being."""

import errno
import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertLMHeadModel, GPT2LMHeadModel

from loratlas.study.lock import LOCK_NAME, only_controller
from loratlas.study.store import FILE_NAME, NEW_NAME

LONG = "a" * 300


# --- the study file


def test_a_study_file_that_is_not_there(refused, study_folder):
    assert refused("run", study_folder / "studi.yaml") == (
        f"{study_folder}/studi.yaml: there is no such file (did you mean study.yaml?)"
    )
    assert "does not exist" in refused("run", study_folder / "no" / "study.yaml")
    assert refused("plan", study_folder) == (
        f"{study_folder}: is a folder; give the study file itself; in that folder: study.yaml"
    )
    assert refused("run", LONG + ".yaml").endswith("cannot be read: File name too long")
    assert "is a folder" in refused("run", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: the file is empty; a study file begins with `name: ...`"),
        (b"- a\n- b\n", ":1: the file holds a list; a study file is a mapping"),
        (b"name: [a\n", ":1: cannot be read as YAML: a bracket or a quotation mark that is"),
        (b"name: a\n\tmodel: b\n", ":2: cannot be read as YAML: a tab stands where spaces are"),
        (b"name: \xff\n", ":1: the file is not UTF-8; save it as UTF-8"),
        ("name: a\n".encode("utf-16"), ":1: the file is UTF-16; save it as UTF-8"),
        (b"a: &a [b]\nc: *a\n", ":1: anchors (&) and aliases (*) are not read"),
        (b"\x00\x01\x02", ":1: holds a control character, which YAML refuses"),
        (b"{" * 100, ":1: nested deeper than any study"),
    ],
)
def test_what_is_no_study_file(refused, study_folder, content, message):
    (study_folder / "study.yaml").write_bytes(content)
    assert f"study.yaml{message}" in refused("run", study_folder / "study.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: 2", "sedes: 2"), "16: sedes: this key is not known (did you mean seeds?)"),
        (("steps: 3", "lr: 3"), "15: training.lr: this key is not known (did you mean learning_"),
        (("seeds: 2", "seeds: 2\nseeds: 3"), "17: seeds: this key is given twice (first on line"),
        (("name: tiny\n", ""), "1: name: this key is missing"),
        (("name: tiny", "name: ../tiny"), "1: name: ../tiny cannot be used; the name of a study"),
        (("seeds: 2", "seeds: two"), "16: seeds: two is text, not a number; seeds are a number"),
        (("batch: 4", "batch: true"), "15: training.batch: true is not a number"),
        (("1e-2", ".nan"), "15: training.learning_rate: .nan is not a finite number"),
        (("1e-2", "-1e-2"), "15: training.learning_rate: -1e-2 is too small"),
        (("rank: 2", "rank: 0"), "14: lora.rank: 0 is too small; a rank is an integer from 1 up"),
        (("rank: 2", "rank: 2.5"), "14: lora.rank: 2.5 is not a whole number"),
        (("alpha: 4", "alpha: .inf"), "14: lora.alpha: .inf is not a finite number"),
        (("format: prompt_completion", "format: promt_completion"), "5: data.format: promt_compl"),
        (
            ("baseline: full", "baseline: ful"),
            "13: baseline: ful is not one of the placements (did",
        ),
        (("full: all", 'full: ""'), '11: placements.full: "" is empty; a placement is a rule'),
        (("full: all", "full:"), "11: placements.full: nothing is given"),
        (("full: all", "full: (all"), "11: placements.full: the rule ends too early"),
        (("full: all", "full: attenton"), "11: placements.full: unknown word attenton (did you me"),
        (
            ("full: all", "full: feed-forward"),
            "11: placements.full: unknown word feed-forward (did you mean feed_forward?)",
        ),
        (("full: all", "full: all:0"), "11: placements.full: a rank is a positive integer, not 0"),
        (
            ("full: all", 'full: "all @ layers(0, 50%..)"'),
            "11: placements.full: one list of layers holds indices or percentages, not both",
        ),
        (
            ("full: all", "full: {scorer: gradient}"),
            "11: placements.full: the baseline is a rule: the others are matched to its",
        ),
        (
            ("full: all", "full: {policy: saliency}"),
            "11: placements.full: the baseline is a rule: the others are matched to its",
        ),
        (
            ("seeds: 2", "seeds: 2\nhypothesis: {full: best}"),
            "17: hypothesis.full: the hypothesis 'best' cannot be read; write 'at least 95% of",
        ),
        (("seeds: 2", "seeds: 2\nsearch: {trials: 9}"), "17: search: a search over placements"),
        (("seeds: 2", "seeds: 2\nmeasures: [accuracy]"), "17: measures[0]: accuracy is not known;"),
        (
            ("seeds: 2", 'seeds: 2\nmeasures: ["lm_eval:gsm8"]'),
            " measures: lm_eval:gsm8: lm_eval knows no such task (did you mean gsm8k?)",
        ),
        (("model: ", "version: 9\nmodel: "), "2: version: 9 is newer than this loratlas reads (1)"),
        (("full: all", '"\\e[31mfull": all'), r"11: placements.\x1b[31mfull: the name of a pl"),
    ],
)
def test_what_a_study_file_may_not_say(refused_study, change, message):
    assert refused_study(change).startswith(f"study.yaml:{message}")


def test_a_study_without_placements(refused_study):
    nothing = ("placements:\n  full: all\n  attention: attention\nbaseline: full\n", "")
    assert refused_study(nothing) == "study.yaml:1: placements: this key is missing"


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("all @ layers(2, 3)", "layer 3 is not there: the decoder of "),
        ("all @ layers(-4)", "layer -4 is not there: the decoder of "),
        ("all @ layers(-1..0)", "layers -1..0 run backwards: the decoder of "),
        ("all @ last(4)", "last(4) asks for more layers than there are: the decoder of "),
        ("all @ encoder", "MODEL has no encoder; its stacks are decoder"),
        ("names(c_atn)", "names(c_atn) matches no site of MODEL (did you mean c_attn?); names"),
        ("names(c_attn, nope)", "names(nope) matches no site of MODEL; names there: wte, wpe, c"),
        ("names([red])", "names([red]) matches no site of MODEL; names there: "),
        ("router", "the rule router selects no site. router: MODEL has no router site; its roles"),
        (
            "attention.q",
            "the rule attention.q selects no site. attention.q: MODEL fuses q, k and v",
        ),
        ("all - all", "the rule all - all selects no site. all - all: nothing is left"),
        ("all + attention:3", "the parts all and attention:3 overlap in 6 sites: transformer.h.0"),
        ("file(nope.json)", 'file("nope.json"): there is no file '),
    ],
)
def test_a_rule_that_does_not_fit_the_model(refused_study, tiny_folder, verb, rule, message):
    found = refused_study(("attention: attention", f'attention: "{rule}"'), verb=verb)
    expected = message.replace("MODEL", str(tiny_folder))
    assert found.startswith(f"study.yaml:12: placements.attention: {expected}")


# --- the model


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "./nowhere: no such file or folder"),
        ("nobody/nothing", "nobody/nothing: no folder of this name is here, and the hub cannot be"),
        ("demo:gpt3", "study.yaml:2: model: demo:gpt3: no such bundled model (did you mean demo:g"),
        (LONG, f"{LONG}: cannot be looked up: File name too long"),
        ('"   "', "the name of the model is empty"),
    ],
)
def test_a_model_that_is_not_there(refused_study, tiny_folder, verb, name, message):
    assert refused_study((str(tiny_folder), name), verb=verb).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x\x1b[31m", r"x\x1b[31m: no folder here, and no valid name on the hub"),
        ("[/red]", "[/red]: no folder here, and no valid name on the hub"),
        ("", "the name of the model is empty"),
        (LONG, f"{LONG}: cannot be looked up: File name too long"),
    ],
)
def test_a_model_with_an_odd_name(refused, name, message):
    assert refused("anatomy", name) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2",', "/config.json: not valid JSON (line 1, column 23: Expecting"),
        ("[]", "/config.json: holds a list, not a configuration"),
        ("", "/config.json: not valid JSON (line 1, column 1: "),
        ("[" * 100_000, "/config.json: cannot be read as a configuration (maximum recursion"),
        ('{"n_layer": ' + "9" * 5000 + "}", "/config.json: cannot be read as a configuration (Ex"),
        ("{}", ": its configuration has no model_type, such as gpt2 or llama"),
        ('{"model_type": "gpt22"}', ": transformers "),
        ('{"model_type": "gpt2", "n_layer": "three"}', ": no gpt2 can be built from it: "),
        ('{"model_type": "gpt2", "n_embd": -4}', ": no gpt2 can be built from it: "),
    ],
)
def test_a_broken_configuration(refused_study, model_copy, tiny_folder, content, message):
    model = model_copy()
    (model / "config.json").write_text(content)
    assert refused_study((str(tiny_folder), str(model))).startswith(f"model{message}")


def test_a_folder_that_is_no_model(refused_study, model_copy, tiny_folder):
    model = model_copy("config.json")
    found = refused_study((str(tiny_folder), str(model)))
    assert found == "model: this folder has no config.json"


def test_a_model_without_layers(refused_study, model_copy, tiny_folder):
    found = refused_study((str(tiny_folder), str(model_copy(n_layer=0))))
    assert "has no site inside its blocks; its roles are embedding (2), head (1)" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 4}, "12 tensors are missing, first transformer.h.3.attn.c_attn.bias"),
        ({"n_embd": 64}, "tensors have another shape, first "),
        ({"vocab_size": 100}, "1 tensors have another shape, first transformer.wte.weight: "),
    ],
)
def test_weights_that_do_not_fill_the_model(
    refused_study, model_copy, tiny_folder, changes, message
):
    """Transformers fills the gap with random numbers and goes on."""
    found = refused_study((str(tiny_folder), str(model_copy(**changes))))
    assert found.startswith("model: its weights do not fit its config.json: ")
    assert message in found


def test_weights_that_cannot_be_read(refused_study, model_copy, tiny_folder):
    model = model_copy()
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    found = refused_study((str(tiny_folder), str(model)))
    assert found.startswith("model: the model cannot be loaded: Error while deserializing header")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    found = refused_study()  # the file names the copy by now
    assert found.startswith("model: the model cannot be loaded: Error no file named model.safe")


def test_next_tokens_are_not_predicted_by_a_model_that_sees_them(
    refused_study, model_copy, tiny_folder
):
    model = model_copy("model.safetensors")
    config = BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=400,
    )
    BertLMHeadModel(config).save_pretrained(model)
    assert refused_study((str(tiny_folder), str(model))) == (
        "model: BertLMHeadModel predicts next tokens, but its configuration lets it attend in "
        "both directions (is_decoder is not set)"
    )


def test_a_model_without_its_tokenizer(refused_study, model_copy, tiny_folder):
    model = model_copy("tokenizer.json", "tokenizer_config.json")
    assert refused_study((str(tiny_folder), str(model))) == (
        "model: no tokenizer comes with it (tokenizer.json is missing)"
    )


def test_a_tokenizer_that_cannot_be_read(refused_study, model_copy, tiny_folder):
    model = model_copy()
    (model / "tokenizer.json").write_text("{}")
    found = refused_study((str(tiny_folder), str(model)))
    assert found.startswith("model: the tokenizer cannot be loaded: ")


def test_a_tokenizer_of_another_model(refused_study, model_copy, tiny_folder):
    from transformers import GPT2Config

    model = model_copy("model.safetensors")
    config = GPT2Config(n_layer=1, n_embd=32, n_head=4, n_positions=64, vocab_size=50)
    GPT2LMHeadModel(config).save_pretrained(model)
    found = refused_study((str(tiny_folder), str(model)))
    assert "its vocabulary has 50 entries: tokenizer and model do not belong together" in found


def test_a_configuration_file_cannot_be_trained(refused_study, tiny_folder):
    found = refused_study((f"model: {tiny_folder}", f"model: {tiny_folder}/config.json"))
    assert found.endswith("is a file; weights and tokenizer are read from the folder that holds it")


def test_rows_longer_than_the_model_reads(refused_study, study_folder):
    rows = [
        {"prompt": f"Where does Ada {i} live?", "completion": " In Oslo," + " since then," * 60}
        for i in range(60)
    ]
    (study_folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = refused_study(("max_length: 48", "max_length: 200"))
    assert found.startswith("study.yaml: data.max_length: 200 lets rows of ")
    assert found.endswith("reads at most 64")


def test_a_device_that_is_not_there(refused_study, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = refused_study(("seeds: 2", "seeds: 2\ndevice: cuda"))
    assert found.startswith("device cuda: not available here; there is: ")


# --- the data


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("row.jsonl", "row.jsonl: no such file in "),
        ("no/such/file.jsonl", "no/such/file.jsonl: no such file in "),
        ("rows.tsv", "rows.tsv: files that can be read end in .jsonl, .json, .csv, .parquet"),
        ("nobody/nothing", "nobody/nothing: neither a file in "),
        ("demo:factz", "factz: no such bundled task (did you mean facts?); there is: facts"),
        (".", ".: is a folder; name one file of it: rows.jsonl"),
        ("{train: rows.jsonl, test: tests.jsonl}", "tests.jsonl: no such file in "),
        ("a" * 290 + ".jsonl", "a" * 80 + ": cannot be read: File name too long"),
    ],
)
def test_data_that_are_not_there(refused_study, study_folder, source, message):
    (study_folder / "rows.tsv").write_text("a\tb\n")
    assert refused_study(("source: rows.jsonl", f"source: {source}")).startswith(message)


GOOD = '{"prompt": "a", "completion": "b"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "rows.jsonl: the file holds no row"),
        ("\n \n", "rows.jsonl: the file holds no row"),
        (GOOD + '{"prompt": "a", "compl', "rows.jsonl:2: not valid JSON: Unterminated string"),
        (GOOD + '{"prompt": "a"}', 'rows.jsonl:2: no key "completion"; the row holds prompt'),
        (GOOD + '{"prompt": "a", "completion": 3}', 'rows.jsonl:2: "completion" must be a text, f'),
        (GOOD + '{"prompt": "", "completion": "b"}', 'rows.jsonl:2: "prompt" must hold some text'),
        (GOOD + "[1]", "rows.jsonl:2: a row must be an object with keys, found a list of 1"),
        (GOOD + '{"prompt": NaN}', "rows.jsonl:2: not valid JSON: NaN is not a JSON value"),
        (GOOD + '{"prompt": "\\ud800"}', 'rows.jsonl:2: "prompt" holds the lone surrogate'),
        (GOOD + "[" * 100_000, "rows.jsonl:2: not valid JSON: nested too deeply"),
        (GOOD, "rows.jsonl: too few rows: usable 1, asked for 12 test + 8 validation + 32 train"),
        (
            '{"prompt": "a", "completion": ""}\n' * 60,
            "rows.jsonl: too few rows: usable 0 (60 less 60 without an answer), asked for 12 test",
        ),
        (GOOD * 60, "rows.jsonl: too few rows: usable 1 (60 less 59 repeated), asked for 12 test"),
    ],
)
def test_data_that_cannot_be_used(refused_study, study_folder, content, message):
    (study_folder / "rows.jsonl").write_text(content)
    assert refused_study().startswith(message)


def test_data_that_are_not_utf8(refused_study, study_folder):
    (study_folder / "rows.jsonl").write_bytes(GOOD.encode() + b'{"prompt": "\xe9"}')
    assert refused_study() == "rows.jsonl:2: not UTF-8 at byte 47; save the file as UTF-8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_length: 48", "max_length: 3"), "data: train has zero supervised tokens: in each of"),
        (("prompt_completion", "alpaca"), 'rows.jsonl:1: no key "instruction"; the row holds prom'),
        (("prompt_completion", "text"), "data.loss_on: format text has no response to tell from"),
        (
            ("prompt_completion", "messages"),
            'rows.jsonl:1: no key "messages"; the row holds prompt',
        ),
        (
            ("  test: 12\n", ""),
            "data.test: rows.jsonl has no test split; say how many rows to draw",
        ),
        (
            ("  validation: 8\n", ""),
            "study.yaml: data.validation: several learning rates need validation rows",
        ),
    ],
)
def test_data_that_do_not_fit_the_study(refused_study, study_folder, change, message):
    several = ("learning_rate: 1e-2", "learning_rate: [1e-3, 1e-2]")
    assert refused_study(change, several).startswith(message)


def test_a_conversation_without_a_chat_template(refused_study, study_folder):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    lines = [json.dumps({**row, "number": i}) for i in range(60)]
    turns = (line.replace('"b"', f'"b{i}"') for i, line in enumerate(lines))
    (study_folder / "rows.jsonl").write_text("\n".join(turns))
    found = refused_study(("prompt_completion", "messages"))
    assert found.startswith("data.format: messages needs a chat template, and the tokenizer of ")


# --- the run folder


def test_a_run_folder_that_cannot_be_one(refused, study_folder, tmp_path):
    study, file = study_folder / "study.yaml", study_folder / "rows.jsonl"
    assert refused("run", study, "--out", file) == f"{file}: is a file; a run needs a folder"
    assert refused("run", study, "--out", study_folder).startswith(
        f"{study_folder}: holds files that are no run (run.sqlite is missing); give an empty or"
    )
    assert refused("run", study, "--out", file / "run").startswith(
        f"{file}/run: cannot be made: Not a directory"
    )
    assert refused("run", study, "--out", LONG) == (
        f"{LONG}: cannot be looked at: File name too long"
    )
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert refused("run", study, "--out", tmp_path / "link") == (
        f"{tmp_path}/link: a link that leads nowhere"
    )
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("where", ["mkdir", "iterdir"])
def test_a_run_folder_that_may_not_be_used(refused, study_folder, monkeypatch, where):
    """The superuser may do everything, so the refusal of the system is played."""

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    out = study_folder / "run"
    if where == "iterdir":
        out.mkdir()
    monkeypatch.setattr(Path, where, refuse)
    assert refused("run", study_folder / "study.yaml", "--out", out).endswith(": Permission denied")


def test_two_runs_at_a_time(refused, study_folder):
    out = study_folder / "run"
    out.mkdir()
    with only_controller(out):
        found = refused("run", study_folder / "study.yaml", "--out", out)
    assert found == f"{out}: another `loratlas run` is working here"
    assert sorted(path.name for path in out.iterdir()) == [LOCK_NAME]


@pytest.mark.parametrize("verb", ["status", "results"])
def test_what_is_no_run(refused, study_folder, verb):
    (study_folder / "runs" / "first").mkdir(parents=True)
    (study_folder / "runs" / "first" / FILE_NAME).touch()
    runs = study_folder / "runs"
    assert refused(verb, runs / "frist") == (
        f"{runs}/frist: no such run folder (did you mean first?); in {runs} there is: first"
    )
    assert refused(verb, study_folder) == f"{study_folder}: no run here (run.sqlite is missing)"
    file = study_folder / "study.yaml"
    assert refused(verb, file) == f"{file}: is a file; give the run folder"
    assert refused(verb, LONG) == f"{LONG}: cannot be looked at: File name too long"


@pytest.mark.parametrize("verb", ["status", "results"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no database, only its name" * 99, "file is not a database"), (b"", "no such table: meta")],
)
def test_a_damaged_store(refused, study_folder, verb, content, message):
    store = study_folder / "run" / FILE_NAME
    store.parent.mkdir()
    store.write_bytes(content)
    assert refused(verb, store.parent, code=1) == f"{store}: {message}"
    assert store.read_bytes() == content


def test_what_a_kill_leaves_behind_is_no_obstacle(study_folder):
    """Killed before it had a store, a run leaves its lock and a store in the making."""
    from loratlas.study.folder import check_folder

    out = study_folder / "run"
    out.mkdir()
    (out / LOCK_NAME).touch()
    (out / NEW_NAME).write_bytes(b"half")
    check_folder(out)


# --- place and schema


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--rank", "0"], "rank is a positive integer, not 0"),
        (["all", "--rank", "-3"], "rank is a positive integer, not -3"),
        (["all", "--alpha", "inf"], "alpha is a finite number, not inf"),
        (["all", "--alpha", "1e999"], "alpha is a finite number, not inf"),
        (["all", "--alpha", "nan"], "alpha is positive, not nan"),
        (["all", "--alpha", "0"], "alpha is positive, not 0.0"),
        (["attention:0"], "a rank is a positive integer, not 0 (column 11)"),
        ([""], "the rule is empty; it needs a word such as all, attention, feed_forward"),
        (["feed-forward"], "unknown word feed-forward (did you mean feed_forward?)"),
        (["all\x1b[2J"], r"cannot read '\x1b' here"),
        (["all @ layers(99)"], "layer 99 is not there"),
        (["all + all"], "the parts all and all overlap in 12 sites"),
        (["all @ layers(2..1)"], "2..1 is empty; a range goes upwards (column 14)"),
        (["names([/red])"], "[/red] is no name: names takes dotted suffixes"),
    ],
)
def test_a_placement_that_cannot_be(refused, tiny_folder, arguments, message):
    assert refused("place", tiny_folder, *arguments).startswith(message)


def test_a_schema_that_cannot_be_written(refused, tmp_path):
    target = tmp_path / "no" / "schema.json"
    assert refused("schema", "--out", target) == (
        f"{target}: cannot be written: No such file or directory"
    )
    assert not target.parent.exists()
    assert refused("schema", "--out", tmp_path).endswith("cannot be written: Is a directory")


# --- what the command line itself refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["anatmy"], "No such command 'anatmy'. Did you mean 'anatomy'?"),
        (["anatomy"], "Missing argument 'MODEL'"),
        (["run"], "Missing argument 'STUDY'"),
        (["anatomy", "demo:gpt2", "--jsn"], "No such option: --jsn"),
        (["place", "demo:gpt2", "all", "--rank", "x"], "Invalid value for '--rank'"),
        (["place", "demo:gpt2", "all", "--scaling", "rslor"], "'rslor' is not one of"),
        (["status", "a", "b"], "Got unexpected extra argument"),
    ],
)
def test_verbs_and_options_that_are_not_there(cli, arguments, message):
    said = cli(*arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "Usage: loratlas" in said.err
    assert "Traceback" not in said.err
