"""What a model is made of: sites, their roles, and the anatomy that holds them.

Data only; nothing here imports torch. Words are those of the placement language.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Self

SiteKind = Literal["linear", "conv1d", "embedding", "expert"]

# How the reason of an idle site ends.
IDLE = "tokens do not pass through it"


class Family(StrEnum):
    """The kinds of block a site can belong to."""

    ATTENTION = "attention"
    CROSS_ATTENTION = "cross_attention"
    FEED_FORWARD = "feed_forward"
    EXPERT = "expert"
    SHARED_EXPERT = "shared_expert"
    ROUTER = "router"
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Role:
    """What a site does in the forward pass: a family and, where it has parts, one part.

    ``attention.q`` is ``Role(family=Family.ATTENTION, part="q")``; ``head`` has no part.
    """

    family: Family
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a role as it is written, such as ``feed_forward.down``."""
        family, _, part = text.partition(".")
        return cls(family=Family(family), part=part)

    def __str__(self) -> str:
        return f"{self.family}.{self.part}" if self.part else str(self.family)


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One place where an adapter can go.

    Attributes:
        path: exact dotted path of the module, or of the parameter for an expert.
        stack: ``decoder`` or ``encoder`` for a site inside a block, None outside.
        layer: index of the block within its stack, None outside blocks.
        role: what the site does in the forward pass.
        d_in: number of input features (rows of the vocabulary for an embedding).
        d_out: number of output features.
        num_experts: number of experts that the parameter holds, None for one map.
        kind: how the weights are stored. ``conv1d`` is GPT-2's transposed linear map;
            ``expert`` is a bare parameter, which PEFT reaches by ``target_parameters``:
            the stacked matrices of experts, or one matrix, as of a router. Without a
            role it may be one that PEFT would misread, and the reason says so.
        reason: why the role is ``other``, or why the site is idle; None for all else.
    """

    path: str
    stack: str | None
    layer: int | None
    role: Role
    d_in: int
    d_out: int
    num_experts: int | None = None
    kind: SiteKind = "linear"
    reason: str | None = None

    @property
    def parameters_per_rank(self) -> int:
        """Adapter parameters that one unit of rank costs here: (d_in + d_out) per map."""
        return (self.d_in + self.d_out) * (self.num_experts or 1)

    @property
    def in_block(self) -> bool:
        """Whether the site stands inside a block of a stack."""
        return self.layer is not None

    @property
    def idle(self) -> bool:
        """Whether the forward pass of tokens leaves the site out: an adapter gets no gradient."""
        return self.reason is not None and self.reason.endswith(IDLE)

    def to_json(self) -> dict[str, Any]:
        """Return the site as plain data, keys as in the ``anatomy`` command's JSON."""
        return {
            "path": self.path,
            "stack": self.stack,
            "layer": self.layer,
            "role": str(self.role),
            "d_in": self.d_in,
            "d_out": self.d_out,
            "num_experts": self.num_experts,
            "kind": self.kind,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**data, "role": Role.parse(data["role"])})


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The sites of one model, in the order in which the model holds its modules.

    Attributes:
        model: the name or folder that was asked for.
        model_type: ``model_type`` of the configuration, such as ``gpt2``.
        architecture: class whose forward pass was read, such as ``GPT2LMHeadModel``.
        stacks: number of blocks of each stack, such as ``{"encoder": 12, "decoder": 12}``.
        num_parameters: parameters of the base model; tied tensors count once.
        tied_head: whether the head shares its weights with the input embedding.
        sites: every place where an adapter can go.
    """

    model: str
    model_type: str
    architecture: str
    stacks: Mapping[str, int]
    num_parameters: int
    tied_head: bool
    sites: tuple[Site, ...]

    @property
    def num_layers(self) -> int:
        """Number of blocks over all stacks."""
        return sum(self.stacks.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the model is made of; independent of the name it was read by."""
        data = self.to_json()
        return digest_of({key: data[key] for key in data if key not in ("model", "digest")})

    @cached_property
    def by_path(self) -> Mapping[str, Site]:
        """The sites by their path."""
        return {site.path: site for site in self.sites}

    def _repr_html_(self) -> str:
        """Return what a notebook shows: shapes by layer and role."""
        from loratlas.anatomy.grid import grid, shapes

        stacks = ", ".join(f"{name} of {count} layers" for name, count in self.stacks.items())
        title = f"{self.model}: {self.architecture}, {stacks}, {len(self.sites)} sites"
        return grid(title, self.sites, shapes)

    def to_json(self) -> dict[str, Any]:
        """Return the anatomy as plain data, without its digest."""
        return {
            "model": self.model,
            "model_type": self.model_type,
            "architecture": self.architecture,
            "num_layers": self.num_layers,
            "stacks": dict(self.stacks),
            "num_parameters": self.num_parameters,
            "tied_head": self.tied_head,
            "sites": [site.to_json() for site in self.sites],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            model=data["model"],
            model_type=data["model_type"],
            architecture=data["architecture"],
            stacks=dict(data["stacks"]),
            num_parameters=data["num_parameters"],
            tied_head=data["tied_head"],
            sites=tuple(Site.from_json(site) for site in data["sites"]),
        )


def digest_of(data: Any) -> str:
    """Return the SHA-256 of canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
