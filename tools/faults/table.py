"""Every fault that can be staged, and what of the list cannot be, with the reason."""

from faults import changes, checkpoints, deaths, disks, outside, signals, stores
from faults.scene import Fault

FAULTS: tuple[Fault, ...] = (
    *signals.FAULTS,
    *deaths.FAULTS,
    *checkpoints.FAULTS,
    *stores.FAULTS,
    *disks.FAULTS,
    *changes.FAULTS,
    *outside.FAULTS,
)

NOT_STAGED = (
    ("a node of a cluster is killed", "one machine has no nodes; kill -9 stands in for it"),
    ("PostgreSQL is restarted", "a run keeps its records in SQLite; there is no server"),
    ("a file system goes read-only while it is written", "Linux refuses that while files are open"),
    (
        "a lost page, a power failure",
        "a kill keeps what the system was given; every record and "
        "checkpoint is synced, and damaged checkpoints are staged",
    ),
    ("names, paths and contents of files", "`make bad-input` asks them all"),
)
