"""Which names do regular expressions match? Run as a script by `patterns`, never imported.

Reads ``{"patterns", "names", "whole"}`` as JSON from stdin; writes for each name the list of
``[number of a pattern that matches, its group "idx" or null]``.
"""

import json
import re
import sys


def _main() -> None:
    asked = json.load(sys.stdin)
    compiled = [re.compile(pattern) for pattern in asked["patterns"]]
    json.dump([_hits(compiled, name, asked["whole"]) for name in asked["names"]], sys.stdout)


def _hits(compiled: list[re.Pattern[str]], name: str, whole: bool) -> list[tuple[int, str | None]]:
    found = []
    for number, pattern in enumerate(compiled):
        match = pattern.fullmatch(name) if whole else pattern.match(name)
        if match:
            found.append((number, match.groupdict().get("idx")))
    return found


if __name__ == "__main__":
    _main()
