"""How does an exported folder come onto the hub? By huggingface_hub, whose work it is."""

import re
from pathlib import Path
from typing import Any

from loratlas.errors import ExportError, WorkError
from loratlas.redaction import redacted

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")


def require_repository(repository: str) -> None:
    """Refuse a name that no repository can have, before anything is written.

    Raises:
        ExportError: it is not NAME or OWNER/NAME.
    """
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise ExportError(
            f"--push {repository}: a repository is NAME or OWNER/NAME: letters, digits, . _ and -"
        )


def push(folder: Path, repository: str, *, message: str, api: Any = None) -> str:
    """Upload a folder; a repository that is new is private, until a person opens it.

    Args:
        folder: what is uploaded, whole.
        repository: NAME or OWNER/NAME.
        message: of the commit.
        api: what does it; None is `huggingface_hub.HfApi`, with the token that it finds.

    Returns:
        where it is.

    Raises:
        WorkError: the hub cannot be reached, or refuses.
    """
    # Imported here: only a push needs it.
    from huggingface_hub import HfApi

    hub = HfApi() if api is None else api
    try:
        made = hub.create_repo(repository, private=True, exist_ok=True, repo_type="model")
        hub.upload_folder(
            repo_id=getattr(made, "repo_id", repository),
            folder_path=str(folder),
            commit_message=message,
            repo_type="model",
        )
    except Exception as error:  # its errors are many, and those of its transport as well
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WorkError(
            f"{repository}: not uploaded: {redacted(reason)}; what was exported is in {folder}"
        ) from error
    return str(made)
