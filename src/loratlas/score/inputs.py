"""What do a model's maps and blocks read, token by token, when rows go forward through it?

Rows keep their order, and no pass holds rows of both halves, so that what is made of the inputs can
be compared between halves. Nothing is kept: each call of a module is handed over when it happens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.anatomy.sites import Family, Site
from loratlas.data.rows import IGNORED
from loratlas.errors import TrialError
from loratlas.score.capture import Tokens, by_row, reads_source
from loratlas.score.resampling import halves
from loratlas.score.sample import as_read, holder_of
from loratlas.score.scorer import Subject


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        site: number of the module: that of its site, where modules are those of sites.
        rows: numbers of the rows that its tokens belong to, padding left out, shape (tokens,).
        scored: which tokens are themselves targets, shape (tokens,); all of them where it
            reads what has no targets: an encoder's tokens, or a text that has a class. An expert
            that is a module of its own is sent tokens in another order than that of their row, so
            that this tells nothing there.
        read: what it read, shape (rows, places, d_in).
        gave: what it gave, shape (rows, places, d_out).
        present: which places hold tokens, shape (rows, places).
        beside: what else it was given.
    """

    site: int
    rows: NDArray[np.int64]
    scored: torch.Tensor
    read: torch.Tensor
    gave: torch.Tensor
    present: torch.Tensor
    beside: tuple[Any, ...] = ()

    @property
    def inputs(self) -> torch.Tensor:
        """What the module read of each token: a copy, shape (tokens, d_in)."""
        return self.read[self.present]

    @property
    def outputs(self) -> torch.Tensor:
        """What it gave for each token: a copy, shape (tokens, d_out)."""
        return self.gave[self.present]


Visit = Callable[[Call], None]


class Watched(NamedTuple):
    """A module to be watched, and whether what it reads are an encoder's tokens."""

    path: str
    module: Any
    reads_source: bool


def maps_of(subject: Subject) -> list[Watched]:
    """Return the modules of a subject's sites, in order."""
    return [
        Watched(site.path, holder_of(subject.base.model, site)[0], reads_source(site))
        for site in subject.sites
    ]


@torch.no_grad()
def read_forward(subject: Subject, watched: Sequence[Watched], visit: Visit) -> None:
    """Send a subject's rows through its model, and hand over what its modules read.

    Args:
        subject: what is scored.
        watched: the modules: the first thing that each reads, and gives, are its features.
        visit: told of each call.

    Raises:
        TrialError: a module mixes the rows of a pass.
    """
    model = subject.base.model
    passes = _Passes(subject, visit)
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        for number, each in enumerate(watched):
            hook = partial(passes.on_call, number, each)
            stack.callback(each.module.register_forward_hook(hook, with_kwargs=True).remove)
        for numbers in batches(subject):
            model(**passes.begin(numbers))


def why_no_inputs(subject: Subject) -> str | None:
    """Return why what a site reads cannot be seen, or None where it can; nothing is computed."""
    return next(filter(None, (why_no_input(site, subject) for site in subject.sites)), None)


def batches(subject: Subject) -> Iterator[list[int]]:
    """Yield the numbers of the rows of each pass: first those of the first half."""
    size = 1 if any(map(is_expert_module, subject.sites)) else subject.batch
    for half in halves(len(subject.rows)):
        for start in range(0, len(half), size):
            yield list(half[start : start + size])


def is_expert_module(site: Site) -> bool:
    """Whether a site is a map of one expert, which reads tokens of all rows in one heap."""
    return site.role.family is Family.EXPERT and site.kind != "expert"


def why_no_input(site: Site, subject: Subject) -> str | None:
    """Return why what one site reads cannot be seen, or None."""
    if site.kind == "embedding":
        return f"{site.path} is an embedding table, which reads no features"
    if site.kind == "expert":
        return (
            f"{site.path} is a bare parameter, and what it reads shows at no module's door; choose "
            "among the other sites"
        )
    return why_absent(site, subject)


def why_absent(site: Site, subject: Subject) -> str | None:
    """Return why the model never calls what holds a site's weight, or None where it does."""
    if site.idle:
        return f"{site.path} reads nothing: {site.reason}"
    try:
        holder_of(subject.base.model, site)
    except AttributeError:
        return f"{type(subject.base.model).__name__} has no {site.path}"
    return None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Text:
    """What an encoder or a decoder reads in a pass.

    Attributes:
        tokens: where there is no padding.
        scored: which tokens are targets, shape (rows, tokens).
    """

    tokens: Tokens
    scored: torch.Tensor

    @classmethod
    def of(cls, present: torch.Tensor, labels: torch.Tensor | None) -> "_Text":
        scored = torch.ones_like(present)
        if labels is not None and labels.shape == present.shape:
            scored = labels.ne(IGNORED)
        return cls(tokens=Tokens(present, padded=not bool(present.all())), scored=scored)


class _Passes:
    """Prepares passes, and hands over what modules read in the one in progress."""

    def __init__(self, subject: Subject, visit: Visit) -> None:
        self._subject = subject
        self._visit = visit
        self._numbers = np.zeros(0, dtype=np.int64)
        self._source: _Text | None = None
        self._target: _Text | None = None

    def begin(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        """Return the arguments of the model's forward pass for some rows."""
        base = self._subject.base
        rows = [as_read(self._subject, number) for number in numbers]
        inputs = {key: each.to(base.device) for key, each in base.collator(rows).items()}
        labels = inputs.pop("labels")
        source = inputs["attention_mask"].bool()
        self._numbers = np.array(numbers, dtype=np.int64)
        if base.task == "seq2seq":
            lengths = torch.tensor([len(row.ids) for row in rows], device=base.device)
            target = torch.arange(labels.shape[1], device=base.device) < lengths[:, None]
            self._source, self._target = _Text.of(source, None), _Text.of(target, labels)
        else:
            self._source = self._target = _Text.of(source, labels)
        return inputs

    def on_call(
        self,
        number: int,
        watched: Watched,
        module: Any,  # noqa: ARG002
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Any,
    ) -> None:
        """Hand over one call of a module."""
        text = self._source if watched.reads_source else self._target
        assert text is not None, f"{watched.path}: called outside of a pass"
        given = (*args, *kwargs.values())
        read = by_row(given[0], text.tokens)
        gave = by_row(output[0] if isinstance(output, tuple) else output, text.tokens)
        if read is None or gave is None:
            raise TrialError(
                f"{watched.path}: reads the tokens of several rows in one heap; take rows one by "
                "one (batch 1)"
            )
        if read.shape[1] != text.tokens.present.shape[1]:  # as a classifier reads: one place a row
            present = torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)
            text = _Text.of(present, None)
        present = text.tokens.present
        self._visit(
            Call(
                site=number,
                rows=np.repeat(self._numbers, present.sum(1).cpu().numpy()),
                scored=text.scored[present],
                read=read,
                gave=gave,
                present=present,
                beside=given[1:],
            )
        )
