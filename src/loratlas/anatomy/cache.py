"""Was this configuration read before, by this reader and this version of transformers?

Entries lie in the user's cache folder, or in the folder that ``LORATLAS_CACHE`` names. An
entry that cannot be read is as good as none, and a folder that cannot be written is left
alone: the cache saves time and decides nothing.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from loratlas.anatomy.sites import Anatomy, digest_of


def cache_folder() -> Path:
    """Return the folder of cached anatomies."""
    root = os.environ.get("LORATLAS_CACHE") or user_cache_dir("loratlas")
    return Path(root).expanduser() / "anatomy"


def cache_key(config: Mapping[str, Any]) -> str:
    """Return the key of a configuration: it, the reader and transformers make the anatomy."""
    return digest_of(
        {
            "config": json.dumps(config, sort_keys=True),  # may hold Infinity
            "reader": _reader_digest(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        }
    )


def _reader_digest() -> str:
    """Return the SHA-256 of this package's source: a changed reader reads anew."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def load(key: str, name: str) -> Anatomy | None:
    """Return the anatomy stored under a key, under the name now asked for; None if none is."""
    try:
        data = json.loads((cache_folder() / f"{key}.json").read_text(encoding="utf-8"))
        anatomy = Anatomy.from_json(data["anatomy"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return replace(anatomy, model=name) if anatomy.digest == data.get("digest") else None


def store(key: str, anatomy: Anatomy) -> None:
    """Store an anatomy, whole or not at all."""
    folder = cache_folder()
    text = json.dumps({"digest": anatomy.digest, "anatomy": anatomy.to_json()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, suffix=".partial")
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(partial).replace(folder / f"{key}.json")
    except OSError:
        Path(partial).unlink(missing_ok=True)
