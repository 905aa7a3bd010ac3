"""How is an adapter copied as it was saved, and how is a configuration held against a placement?"""

import hashlib
import json
import shutil
from pathlib import Path

from loratlas.errors import RequestError, VerificationError
from loratlas.export.subject import Subject
from loratlas.placement.explain import read_peft
from loratlas.placement.placement import Placement

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def copy_adapter(subject: Subject, folder: Path) -> None:
    """Copy the saved adapter as it is, and hold the copy against the run.

    Raises:
        VerificationError: the copy differs, or is not of the placement that was trained.
    """
    folder.mkdir(exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        source = subject.folder / name
        shutil.copyfile(source, folder / name)
        if _sha256(source) != _sha256(folder / name):
            raise VerificationError(f"{folder / name}: the copy is not what was copied")
    require_config(folder / CONFIG, subject.placement)


def require_config(file: Path, placement: Placement) -> None:
    """Raise unless PEFT, given this configuration, adapts exactly these sites, ranks and scales.

    Raises:
        VerificationError: it would adapt something else.
    """
    try:
        found = read_peft(json.loads(file.read_text(encoding="utf-8")), placement.anatomy)
    except (RequestError, ValueError) as error:
        raise VerificationError(f"{file.name}: {error}") from error
    if _strengths(found) != _strengths(placement):
        raise VerificationError(f"{file.name}: it does not say what was trained")


def _strengths(placement: Placement) -> list[tuple[str, int, float]]:
    return [(a.site.path, a.rank, placement.scale(a)) for a in placement.adapters]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
