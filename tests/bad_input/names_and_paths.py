"""Names that no file should have, and paths that lead elsewhere or nowhere."""

from pathlib import Path

from bad_input.case import LONG, PLAN, RUN, SCORE, Case, Spoil, both, edit


def _name(name: str, given: str) -> Case:
    return Case(
        name=name,
        given=edit(("name: tiny", f"name: {given}")),
        asked=RUN,
        says="study.yaml:1: name: ...cannot be used; the name of a study is 1 to 64 letters",
    )


def _out(name: str, out: str, says: str, **rest: object) -> Case:
    """A run folder that cannot be one."""
    return Case(name=name, asked=("run", "study.yaml", "--out", out), says=says, **rest)


def _source(name: str, source: str, says: str) -> Case:
    return Case(
        name=name,
        given=edit(("source: rows.jsonl", f"source: {source}")),
        asked=RUN,
        says=says,
    )


def _allowed(name: str, given: str, says: str) -> Case:
    """A name of a placement that means something elsewhere, and is only text here."""
    return Case(
        name=name,
        given=edit(("attention: attention", f"{given}: attention")),
        asked=PLAN,
        says=says,
        code=0,
        why="a name of a placement is any printable text; it is escaped wherever it is written",
    )


def _refused(name: str, given: str, says: str) -> Case:
    return Case(
        name=name,
        given=edit(("attention: attention", f"{given}: attention")),
        asked=RUN,
        says=f"study.yaml:12: placements.{says}",
    )


def _link(name: str, to: str) -> Spoil:
    return lambda folder: (folder / name).symlink_to(to)


def _read_only(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o555)


def _read_only_run(folder: Path) -> None:
    for path in [*(folder / "run").rglob("*"), folder / "run"]:
        path.chmod(0o555 if path.is_dir() else 0o444)


CASES = [
    _name("a study named ../../x", "../../x"),
    _name("a study named /etc/x", "/etc/x"),
    _name("a study with a NUL in its name", '"a\\0b"'),
    _name("a study name of 300 characters", LONG),
    _name("a study named .hidden", ".hidden"),
    _refused("ANSI in the name of a placement", '"\\e[31mred"', "\\x1b[31mred: the name of a"),
    _refused(
        "a placement name of 300 characters", LONG, "aaa...the name of a placement is 1 to 64"
    ),
    _refused(
        "a line break in a placement name", '"a\\nb"', "a\\nb: the name of a placement is 1 to"
    ),
    _allowed("</script> as a placement", "</script>", "</script>"),
    _allowed("=cmd() as a placement", "=cmd()", "=cmd()"),
    _allowed("\\input as a placement", "'\\input{x}'", "\\input{x}"),
    _allowed("[/red] as a placement", '"[/red]"', "[/red]"),
    _out(
        "a run folder that is a file", "rows.jsonl", "rows.jsonl: is a file; a run needs a folder"
    ),
    _out("a run folder below a file", "rows.jsonl/x", "rows.jsonl/x: ...Not a directory"),
    _out(
        "a run folder that holds other files", ".", ".: holds files that are no run (run.sqlite is"
    ),
    _out("a run folder of 300 characters", LONG, "aaa...cannot be looked at: File name too long"),
    _out(
        "a run folder that links nowhere",
        "link",
        "link: a link that leads nowhere",
        given=_link("link", "nowhere"),
    ),
    _out(
        "a run folder that links to itself",
        "link",
        "link: a link that leads nowhere",
        given=_link("link", "link"),
    ),
    _out(
        "a run folder that cannot be made",
        "/proc/loratlas",
        "/proc/loratlas: cannot be made: ",
    ),
    _out(
        "a read-only folder",
        "locked/out",
        "locked/out: cannot be made: Permission denied",
        given=_read_only,
        unprivileged=True,
    ),
    _out(
        "a run that became read-only",
        "run",
        "run...",
        given=_read_only_run,
        unprivileged=True,
        finished=True,
        code=2,
    ),
    _source("data outside the folder", "../../../nowhere.jsonl", "../../../nowhere.jsonl: no such"),
    _source(
        "data by an absolute path", "/nowhere/rows.jsonl", "/nowhere/rows.jsonl: no such file in"
    ),
    _source(
        "data of 300 characters", f"{'a' * 290}.jsonl", "aaa...: cannot be read: File name too"
    ),
    _source("data that are a folder", ".", ".: is a folder; name one file of it: rows.jsonl"),
    _source("data with a NUL in their name", '"rows\\0.jsonl"', "study.yaml:4: data.source: "),
    Case(
        name="data through a link that leads out",
        given=both(
            edit(("source: rows.jsonl", "source: link.jsonl")), _link("link.jsonl", "/etc/passwd")
        ),
        asked=RUN,
        says="link.jsonl: leads out of ...a file elsewhere is given by its whole path",
    ),
    Case(
        name="a saved placement outside the folder",
        given=edit(("attention: attention", "attention: 'file(../../../nowhere.json)'")),
        asked=RUN,
        says='study.yaml:12: placements.attention: file("...nowhere.json"): ...no such file',
    ),
    Case(
        name="a saved placement that is a folder",
        given=edit(("attention: attention", "attention: file(model)")),
        asked=RUN,
        says='study.yaml:12: placements.attention: file("model"): ...cannot be read as JSON',
    ),
    Case(
        name="a saved placement of 300 characters",
        given=edit(("attention: attention", f"attention: file({LONG})")),
        asked=RUN,
        says="study.yaml:12: placements.attention: file(...cannot be read as JSON",
    ),
    Case(
        name="a full disk, for a schema",
        asked=("schema", "--out", "/dev/full"),
        says="/dev/full: cannot be written: No space left on device",
    ),
    Case(
        name="a full disk, for a placement",
        asked=("allocate", "scores.json", "--budget", "1k", "--out", "/dev/full"),
        says="/dev/full: cannot be written: No space left on device",
    ),
    Case(
        name="a full disk, for scores",
        asked=(*SCORE, "--out", "/dev/full"),
        says="--out /dev/full: cannot be written: No space left on device",
    ),
    Case(
        name="a schema in a folder that is not there",
        asked=("schema", "--out", "no/schema.json"),
        says="no/schema.json: cannot be written: No such file or directory",
    ),
    Case(
        name="a schema in place of a folder",
        asked=("schema", "--out", "model"),
        says="model: cannot be written: Is a directory",
    ),
    Case(
        name="scores in a folder that is not there",
        asked=(*SCORE, "--out", "no/scores.json"),
        says="--out no/scores.json: its folder is not there",
    ),
]
