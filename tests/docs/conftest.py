"""How the documents are read: their fenced blocks, and the files that they ask to be saved."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README, GUIDE = REPOSITORY / "README.md", REPOSITORY / "docs" / "guide.md"

_FENCE = re.compile(r"^```(\w+)?[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"save (?:the shape of the model|this) as\s+`([^`]+)`", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A fenced block, the text between it and the block before, and the line it begins on."""

    document: Path
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a bash block that calls loratlas, and what the document says it prints."""

    where: str
    arguments: tuple[str, ...]
    output_file: str | None
    exits: int
    printed: tuple[str, ...]


def blocks(document: Path, language: str | None = None) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        before = text[end : match.start()]
        found.append(Block(document, line, match[1] or "", match[2], before))
        end = match.end()
    return [block for block in found if language in (None, block.language)]


def saved_as(block: Block) -> str | None:
    """Return the file that the sentence before a block says to save it as."""
    names = _SAVED.findall(" ".join(block.before.split()))
    return names[-1] if names else None


def commands(document: Path) -> list[Command]:
    """Return the loratlas calls of a document; a text block belongs to the call before it."""
    everything = blocks(document)
    found = []
    for number, block in enumerate(everything):
        if block.language != "bash":
            continue
        following = everything[number + 1] if number + 1 < len(everything) else None
        adjoins = following is not None and following.language == "text"
        printed = following.text if adjoins and not following.before.strip() else ""
        lines = [line for line in block.text.splitlines() if line.startswith("loratlas ")]
        for line in lines:
            found.append(_command(block, line, printed if line is lines[-1] else ""))
    return found


def _command(block: Block, line: str, printed: str) -> Command:
    words = shlex.split(line, comments=True)[1:]
    output_file = None
    if ">" in words:
        output_file = words[words.index(">") + 1]
        words = words[: words.index(">")]
    comment = re.search(r"# exits (\d)", line)
    return Command(
        where=f"{block}: {line}",
        arguments=tuple(words),
        output_file=output_file,
        exits=int(comment[1]) if comment else 0,
        printed=tuple(printed.splitlines()),
    )


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with the shipped studies and the files that the guide asks to be saved."""
    (tmp_path / "studies").symlink_to(REPOSITORY / "studies")
    for block in blocks(GUIDE):
        name = saved_as(block)
        if name is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path
