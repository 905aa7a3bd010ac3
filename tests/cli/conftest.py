import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The whole of stdout, read as JSON without its leave to hold NaN."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def cli(capsys) -> Callable[..., Said]:
    """Runs a command in this process."""
    from loratlas.cli.main import main

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(end.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli) -> Callable[..., str]:
    """Runs a command that has to be refused; returns its one message."""

    def call(*arguments: object, code: int = 2) -> str:
        said = cli(*arguments)
        assert said.code == code, said
        assert said.out == ""
        assert "Traceback" not in said.err
        assert said.err.count("loratlas: ") == 1
        told, _, message = said.err.rpartition("loratlas: ")
        # Before the message stand whole sentences about what was being done, nothing else.
        assert told == "" or told.startswith("reading ")
        assert said.err.endswith("\n")
        assert all(letter.isprintable() or letter == "\n" for letter in said.err)
        return message.rstrip("\n")

    return call
