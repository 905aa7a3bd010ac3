"""What does a YAML file say, and on which line does it say it?

YAML 1.2 without what a study file has no use for: anchors, aliases, tags, directives and
second documents are refused, so that no file can grow when it is read.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, Event, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from loratlas.errors import StudyError, did_you_mean
from loratlas.study.problems import Problem, visible

MAX_BYTES = 1_000_000
MAX_DEPTH = 16

Location = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

_NUMBERS_AND_THE_LIKE = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where a value stands and how it was written."""

    line: int
    """Line of its key, counted from 1."""
    shown: str
    """A scalar as it stands in the file, quotes included; otherwise "a list" or "a mapping"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Plain data of a YAML file whose root is a mapping, and the line of each value.

    Every key is text, as written: ``16:`` is the key "16", ``no:`` the key "no".
    """

    path: Path
    data: dict[str, Any]
    entries: dict[Location, Entry]
    problems: tuple[Problem, ...]
    """Keys that were given twice, or that are no words."""

    def line(self, location: Location) -> int:
        """Return the line of a value, or of the nearest value around it."""
        return self.entries[self.known(location)].line

    def shown(self, location: Location) -> str:
        """Return how a value was written."""
        return self.entries[self.known(location)].shown

    def known(self, location: Location) -> Location:
        """Return the longest beginning of a location that stands in the file."""
        while location and location not in self.entries:
            location = location[:-1]
        return location


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        StudyError: the file is missing, or is not one YAML mapping in UTF-8.
    """
    return parse_document(_decode(path, _read_bytes(path)), path)


def parse_document(text: str, path: Path) -> Document:
    """Read YAML text; the path is only named in messages.

    Raises:
        StudyError: the text is not one YAML mapping.
    """
    root = _compose(text, path)
    if root is None:
        raise StudyError(f"{path}:1: the file is empty; a study file begins with `name: ...`")
    if not isinstance(root, MappingNode):
        raise StudyError(
            f"{path}:{root.start_mark.line + 1}: the file holds {_written(root)}; "
            "a study file is a mapping that begins with `name: ...`"
        )
    reading = _Reading()
    data = reading.read(root, (), root)
    return Document(path=path, data=data, entries=reading.entries, problems=tuple(reading.problems))


def dotted(location: Location) -> str:
    """Return a location as a person reads it: ``training.learning_rate[1]``."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{visible(step)}" for step in location)
    return "".join(parts).removeprefix(".")


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise StudyError(f"{path}: is a folder; give the study file itself{_files_in(path)}")
        if not path.exists():
            raise StudyError(f"{path}: there is no such file{_nearest_file(path)}")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, StudyError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyError(f"{visible(str(path))}: cannot be read: {reason}") from error
    if len(content) > MAX_BYTES:
        raise StudyError(
            f"{path}: is larger than {MAX_BYTES} bytes; a study file is a page of text"
        )
    return content


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    return did_you_mean(path.name, _yaml_names(path.parent)) or _files_in(path.parent)


def _files_in(folder: Path) -> str:
    names = _yaml_names(folder)
    return f"; in that folder: {', '.join(names[:5])}" if names else ""


def _yaml_names(folder: Path) -> list[str]:
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix in (".yaml", ".yml") and not file.name.startswith(".")
    )


def _decode(path: Path, content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise StudyError(f"{path}:1: the file is {encoding}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyError(f"{path}:{line}: the file is not UTF-8; save it as UTF-8") from error


def _compose(text: str, path: Path) -> Node | None:
    """Return the root node, after the events were seen to hold nothing that is refused."""
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += _depth_change(event)
            refusal = "nested deeper than any study" if depth > MAX_DEPTH else _refusal(event)
            if refusal:
                raise StudyError(f"{path}:{event.start_mark.line + 1}: {refusal}")
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
        return root
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StudyError(f"{path}:{line}: holds a control character, which YAML refuses") from error
    except MarkedYAMLError as error:
        unclosed = "end" in str(error.problem) and "stream" in str(error.problem)
        mark = (error.context_mark if unclosed else None) or error.problem_mark
        line = mark.line + 1 if mark else 1
        raise StudyError(f"{path}:{line}: cannot be read as YAML: {_explain(error)}") from error
    except (YAMLError, ValueError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError(f"{path}:1: cannot be read as YAML: {visible(str(error))}") from error


def _depth_change(event: Event) -> int:
    name = type(event).__name__
    if name in ("MappingStartEvent", "SequenceStartEvent"):
        return 1
    return -1 if name in ("MappingEndEvent", "SequenceEndEvent") else 0


def _refusal(event: Event) -> str | None:
    if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
        return "anchors (&) and aliases (*) are not read; write the value out, or quote it"
    if getattr(event, "tag", None):
        return "tags (!) are not read; write the plain value, or quote it"
    if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
        return "directives (%) are not read; a study file is YAML 1.2 as it stands"
    return None


def _explain(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "unknown fault")
    if "'\\t'" in problem:
        return "a tab stands where spaces are needed; YAML indents with spaces"
    if "mapping values are not allowed" in problem:
        return "a second `: ` stands in one entry; quote the value, or check the indentation"
    if "cannot start any token" in problem:
        return f"{problem}; quote the value"
    if "another document" in problem:
        return "a second document begins here; a study file is one document"
    if "stream end" in problem or "end of stream" in problem:
        return "a bracket or a quotation mark that is opened here is never closed"
    return f"{problem} {error.context or ''}".replace("\n", " ").strip()


def _written(node: Node) -> str:
    """Return a scalar as it stands in the file, and the kind of anything else."""
    if isinstance(node, SequenceNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    style = node.style if isinstance(node, ScalarNode) else None
    if node.value == "":
        return '""' if style else "nothing"
    quote = style if style in ("'", '"') else ""
    return f"{quote}{visible(node.value)}{quote}"


@dataclass(kw_only=True, slots=True)
class _Reading:
    """Turns nodes into plain data and notes where each value stands."""

    yaml: YAML = field(default_factory=lambda: YAML(typ="safe", pure=True))
    entries: dict[Location, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read(self, node: Node, location: Location, key: Node) -> Any:
        """Return the data of a node; `key` is the node whose line a message names."""
        line = key.start_mark.line + 1
        self.entries[location] = Entry(line=line, shown=_written(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, location)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*location, i), item) for i, item in enumerate(node.value)]
        return self._scalar(node, location, line)

    def _mapping(self, node: MappingNode, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or key.value == "":
                self._note(line, location, f"{_written(key)} stands where a key is needed")
                continue
            here = (*location, key.value)
            if key.value in data:
                first = self.entries[here].line
                self._note(line, here, f"this key is given twice (first on line {first})")
                continue
            data[key.value] = self.read(value, here, key)
        return data

    def _scalar(self, node: Node, location: Location, line: int) -> Any:
        """Return a number, a truth value, None, or otherwise the text (dates are text)."""
        if str(node.tag) not in _NUMBERS_AND_THE_LIKE:
            return node.value
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, YAMLError):  # such as a number of more than 4300 digits
            self._note(line, location, f"{visible(node.value)} cannot be read as a number")
            return None

    def _note(self, line: int, location: Location, text: str) -> None:
        self.problems.append(Problem(line=line, key=dotted(location), text=text))
