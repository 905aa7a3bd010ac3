"""Does what the README and the guide show work, and does it print what they say?"""

import json
import re
from pathlib import Path

import pytest
import typer.main

from loratlas.anatomy.read import read
from loratlas.cli.main import app, main
from loratlas.placement.placement import place
from loratlas.study.spec import load_study, parse_study

from .conftest import GUIDE, README, REPOSITORY, blocks, commands, saved_as

DOCUMENTS = [README, GUIDE]
COMMANDS = [command for document in DOCUMENTS for command in commands(document)]
CHEAP = ("anatomy", "place", "plan", "schema", "score", "allocate")
MINIMAL = "name: x\nmodel: demo:gpt2\ndata: {source: demo:facts, format: prompt_completion}\n"


def is_cheap(command) -> bool:
    """Whether a command trains nothing and asks the hub for nothing."""
    if command.arguments[0] not in CHEAP:
        return False
    return not (
        command.arguments[0] == "plan" and command.arguments[1].startswith("studies/dialogpt")
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_every_command_is_one_that_the_command_line_takes(command):
    group = typer.main.get_command(app)
    verb, *rest = command.arguments
    assert verb in group.commands
    group.commands[verb].make_context(verb, list(rest))


def test_the_cheap_commands_print_what_the_documents_say(workplace, capsys):
    cheap = [command for command in COMMANDS if is_cheap(command)]
    assert len(cheap) > 15
    for command in cheap:
        with pytest.raises(SystemExit) as end:
            main(command.arguments)
        said = capsys.readouterr()
        assert (end.value.code or 0) == command.exits, f"{command.where}\n{said.err}"
        if command.output_file:
            (workplace / command.output_file).write_text(said.out)
        lines = [plain(line) for line in (said.out + said.err).splitlines()]
        for line in command.printed:
            assert plain(line) in lines, f"{command.where}\n{said.out}{said.err}"


def plain(line: str) -> str:
    """Return a line without the lines of a table and the width of its columns."""
    return " ".join(re.sub("[\u2500-\u257f]", " ", line).split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_make_target_is_there(document):
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for block in blocks(document, "bash"):
        for target in re.findall(r"^make (\S+)", block.text, re.MULTILINE):
            assert target in targets, str(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_study_in_a_block_can_be_read(document):
    found = blocks(document, "yaml")
    assert found
    for block in found:
        whole = block.text if "model:" in block.text else MINIMAL + block.text
        study = parse_study(whole, Path(f"{block}"))
        assert study.placements


# PEFT and transformers warn about each other; a person's script goes on, and so does this one.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_python_block_runs(document, adapter_of_the_quickstart):
    found = blocks(document, "python")
    assert found
    for block in found:
        exec(compile(block.text, str(block), "exec"), {})


@pytest.fixture
def adapter_of_the_quickstart(workplace):
    """An untrained adapter where the quickstart would leave a trained one."""
    from torch import device

    from loratlas.train.adapters import new_adapters, save_adapters
    from loratlas.train.base import load_base
    from loratlas.train.trial import ModelRef

    folder = workplace / "runs/quickstart/adapters/attention-lr0.003-seed0-00000000"
    placement = place(read("demo:gpt2"), "attention")
    base = load_base(
        ModelRef(name="demo:gpt2"), dtype="fp32", base_dropout=0.0, device=device("cpu")
    )
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        save_adapters(model, placement, folder, base_name="demo:gpt2", revision=None)


def test_the_counts_that_the_guide_states(workplace):
    guide = " ".join(GUIDE.read_text().split())
    t5, dialogpt = read("t5"), read("dialogpt")
    sites = [len(place(t5, rule).adapters) for rule in ("attention @ encoder", "cross_attention")]
    assert f"The first two hit {sites[0]} sites each" in guide
    assert sites[0] == sites[1]
    assert f"the third {len(place(t5, 'attention').adapters)}:" in guide
    meant = [place(dialogpt, word, rank=16) for word in ("attention", "feed_forward")]
    counts = " and ".join(f"{placement.trainable_parameters:,}" for placement in meant)
    assert f"with {counts} parameters" in guide


def test_the_trials_of_the_small_study(workplace):
    from loratlas.study.resolve import resolve_study
    from loratlas.study.trials import num_trials

    stated = re.search(r"swept make .* = (\d+) trials", GUIDE.read_text())
    study = load_study(Path("small.yaml"))
    assert num_trials(study, resolve_study(study, read(study.model.name))) == int(stated[1])


def test_the_warnings_that_the_guide_names_exist():
    rules = (REPOSITORY / "docs" / "reference" / "rules.md").read_text()
    named = re.findall(r"^- `([a-z]+-[a-z-]+)`:", GUIDE.read_text(), re.MULTILINE)
    assert len(named) == 5
    assert [code for code in named if f"| `{code}` |" not in rules] == []


def test_the_guide_names_every_column_of_its_tables():
    from loratlas.report.tables import results_tables

    examples = blocks(REPOSITORY / "docs" / "reference" / "json.md", "json")
    found = json.loads(next(block.text for block in examples if '"contrasts"' in block.text))
    # What is measured beside the loss has tables of its own, explained where it is asked for.
    for part in (found["base"], *found["placements"].values()):
        part |= {"tasks": {}, "forgetting": None}
    guide = GUIDE.read_text()
    explained = [
        re.findall(r"^\| ([^|`-]+?) \|", part, re.MULTILINE)[1:]
        for part in re.findall(
            r"^### The table of.*?(?=^#|^A dash)", guide, re.MULTILINE | re.DOTALL
        )
    ]
    assert explained == [headers(table) for table in results_tables(found)]


def headers(table) -> list[str]:
    return [" ".join(str(column.header).split()) for column in table.columns]


def test_links_between_documents_lead_somewhere():
    written = [
        README,
        REPOSITORY / "CONTRIBUTING.md",
        REPOSITORY / "CHANGELOG.md",
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
    for document in written:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith("http"):
                assert_leads_somewhere(document, target)


def assert_leads_somewhere(document: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    place_of = (document.parent / name).resolve() if name else document
    assert place_of.exists(), f"{document.name}: {target}"
    if anchor:
        assert anchor in anchors(place_of), f"{document.name}: {target}"


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_to_save_are_found():
    names = [saved_as(block) for block in blocks(GUIDE)]
    assert [name for name in names if name] == [
        "llama/config.json",
        "t5/config.json",
        "small.yaml",
        "dialogpt/config.json",
    ]
