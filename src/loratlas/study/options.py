"""What may a person say about a run, beside its study? No torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What a person says about a run, beside the study; none of it changes a result.

    Attributes:
        probe: whether each placement is probed alone.
        trials_per_pack: most trials that train together; None follows from memory.
        prefix_memory: bytes of memory for hidden states of the frozen base; None follows from it.
        prefix_file: bytes of a file in the run folder for those that memory does not hold.
        checkpoint_seconds: time between two checkpoints of trials that are under way.
        new_version: whether a folder of another study is left alone, and one beside it is taken.
    """

    probe: bool = True
    trials_per_pack: int | None = None
    prefix_memory: int | None = None
    prefix_file: int = 0
    checkpoint_seconds: float = 60.0
    new_version: bool = False
