"""Does a path stay in the folder that it starts from?"""

import os
from pathlib import Path


def leads_out(folder: Path, path: str | Path) -> bool:
    """Return whether a path below a folder ends elsewhere: by ``..``, a root, or a link on its way.

    Args:
        folder: where the path starts; it may itself be reached through a link.
        path: as it was given.
    """
    root = os.path.realpath(folder)
    return not Path(os.path.realpath(Path(root, path))).is_relative_to(root)
