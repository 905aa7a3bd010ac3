"""What a tracker is told of a trial: plain data."""

from dataclasses import asdict, dataclass

from loratlas.anatomy.sites import digest_of
from loratlas.study.records import Status
from loratlas.study.tracking.marks import Mark


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedTrial:
    """One attempt of a trial that ended, as every tracker gets it.

    Attributes:
        run_id: its name in a tracker: no other run folder, trial or attempt has it.
        digest: of the trial's specification.
        attempt: how often the trial was started to the end, this time included.
        study: name of the study.
        model: the base model, as the study names it.
        placement: name of the placement; the first, where several are the same.
        same_as: names of the others that are the same.
        rule: the placement's rule in canonical text.
        trainable_parameters: exact; of a placement that moved those that the trial ended with.
        learning_rate: peak rate.
        seed: its seed.
        status: done, diverged or failed.
        error: why it did not end well, None when it did.
        losses: training loss of each optimiser step, nats per scored token.
        figures: what came out, such as ``test/loss``, ``seconds``, ``probe/seconds_per_step``,
            ``lm_eval:arc_easy/acc``; one that is not known, or not finite, is not there.
    """

    run_id: str
    digest: str
    attempt: int
    study: str
    model: str
    placement: str
    same_as: list[str]
    rule: str
    trainable_parameters: int
    learning_rate: float
    seed: int
    status: Status
    error: str | None
    losses: list[float]
    figures: dict[str, float]

    @property
    def name(self) -> str:
        """What a person reads in a list of runs."""
        again = f"-attempt{self.attempt}" if self.attempt > 1 else ""
        return f"{self.placement}-lr{self.learning_rate:g}-seed{self.seed}{again}"

    @property
    def mark(self) -> Mark:
        """What tells whether a tracker has this trial, as it stands now."""
        return self.run_id, digest_of(asdict(self))

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What the trial was, and how it ended: what a tracker filters and groups by."""
        settings: dict[str, str | int | float] = {
            "study": self.study,
            "model": self.model,
            "placement": self.placement,
            "rule": self.rule,
            "trainable_parameters": self.trainable_parameters,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "status": self.status,
            "attempt": self.attempt,
            "trial": self.digest,
        }
        if self.same_as:
            settings["same_as"] = ", ".join(self.same_as)
        if self.error is not None:
            settings["error"] = self.error
        return settings
