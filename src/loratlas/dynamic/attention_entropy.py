"""Experimental: how widely does each layer of the base attend, as a prior on q and k only?

The entropy of attention, divided by the logarithm of the number of keys that a query sees, is 0
where all weight lies on one key and 1 where it is spread evenly. No published work shows that it
says where rank belongs. So it only tilts the saliency of sites that make queries or keys, by a
bounded factor, and every other site, fused q, k and v among them, keeps a factor of 1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.data.rows import TokenizedRow
from loratlas.dynamic.spec import is_query_or_key
from loratlas.errors import DataError, ModelError
from loratlas.train.attention_kind import attention_as
from loratlas.train.base import Base, quiet

_MAKES_QUERIES = frozenset({"q", "q_up", "qk", "qkv"})


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a stack."""

    stack: str
    index: int


@torch.no_grad()
def attention_entropies(
    base: Base,
    rows: Sequence[TokenizedRow],
    anatomy: Anatomy,
    *,
    without_first_token: bool = False,
    batch: int = 4,
) -> dict[Layer, float]:
    """Return the mean normalised entropy of self-attention in each layer, from 0 to 1.

    H = -Σ a·ln a / ln n over the n keys that a query sees, averaged over heads and over queries
    with n ≥ 2; a key is seen if some head gives it weight. Padding neither asks nor is seen.

    Args:
        base: the base, as it is; its attention is computed step by step for the time of the call.
        rows: what it reads.
        anatomy: of the base.
        without_first_token: leave out the first key, on which many models lay what they attend to
            nowhere, and take the rest as the whole.
        batch: rows of one forward pass; the result does not depend on it beyond rounding.

    Raises:
        DataError: there are no rows, or no query among them sees two keys.
        ModelError: an attention does not show its weights.
    """
    if not rows:
        raise DataError("attention_entropy: there are no rows to read")
    layers = _attentions(anatomy)
    record = _Record(base=base, without_first_token=without_first_token)
    was_training = base.model.training
    base.model.eval()
    try:
        with quiet(), attention_as(base.model, "eager"), record.listening(layers):
            for start in range(0, len(rows), batch):
                record.read(rows[start : start + batch])
    finally:
        base.model.train(was_training)
    return {layer: record.mean(layer) for layer in dict.fromkeys(layers.values())}


def priors(
    entropies: Mapping[Layer, float], sites: Iterable[Site], strength: float
) -> dict[str, float]:
    """Return what saliency is multiplied by at sites of q and k: 1 + strength·(H - mean H).

    H lies within 0 and 1, so that the factor lies within 1 ± |strength|; the mean is over the
    sites. A positive strength favours layers that attend widely, on the guess that they have more
    to learn about where to look; a negative one favours the others.

    Args:
        entropies: by layer, as `attention_entropies` gives them.
        sites: of the placement; those that do not make queries or keys alone are left out.
        strength: between -1 and 1.
    """
    found = {
        site.path: entropies[layer]
        for site in sites
        if is_query_or_key(site) and (layer := _layer(site)) is not None and layer in entropies
    }
    if not found:
        return {}
    middle = sum(found.values()) / len(found)
    return {path: 1 + strength * (entropy - middle) for path, entropy in found.items()}


def normalised_entropies(
    weights: torch.Tensor, num_tokens: int, *, without_first_token: bool = False
) -> torch.Tensor:
    """Return the normalised entropies of one row's attention, one for each head and query.

    Args:
        weights: shape (heads, queries, keys), each query's weights adding up to 1.
        num_tokens: tokens of the row; what lies behind them is padding.
        without_first_token: leave out the first key.

    Returns:
        shape (found,): queries that see fewer than two keys are left out, and those that give none
        of them any weight.
    """
    real = weights[:, :num_tokens, :num_tokens].float()
    seen = (real > 0).any(dim=0)
    if without_first_token:
        seen[:, 0] = False
    num_keys = seen.sum(dim=-1)
    kept = real * seen
    total = kept.sum(dim=-1, keepdim=True)
    valid = (num_keys >= 2) & (total.squeeze(-1) > 0)
    # Where nothing is kept the quotient is no number; it is left out below.
    entropy = torch.special.entr(kept / total).sum(dim=-1)
    normalised: torch.Tensor = entropy / num_keys.clamp(min=2).log()
    return normalised[valid]


@dataclass(kw_only=True, eq=False)
class _Record:
    """What has been seen of the attention of each layer."""

    base: Base
    without_first_token: bool
    sums: dict[Layer, float] = field(default_factory=dict)
    counts: dict[Layer, int] = field(default_factory=dict)
    rows: Sequence[TokenizedRow] = ()

    def read(self, rows: Sequence[TokenizedRow]) -> None:
        """Let the base read a batch."""
        self.rows = rows
        inputs = self.base.collator(rows)
        del inputs["labels"]
        self.base.model(**{name: each.to(self.base.device) for name, each in inputs.items()})

    def mean(self, layer: Layer) -> float:
        """Return the mean entropy of a layer."""
        if not self.counts.get(layer):
            raise DataError(
                "attention_entropy: the rows are too short: no token attends to two others"
            )
        return self.sums[layer] / self.counts[layer]

    @contextmanager
    def listening(self, layers: Mapping[str, Layer]) -> Iterator[None]:
        """Take note of what attention modules return, by the path of the module."""
        with ExitStack() as stack:
            for path, layer in layers.items():
                module = self.base.model.get_submodule(path)
                handle = module.register_forward_hook(self._hook(path, layer))
                stack.callback(handle.remove)
            yield

    def _hook(self, path: str, layer: Layer) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            weights = _weights_among(output)
            if weights is None:
                raise ModelError(
                    f"attention_entropy: {path} of {self.base.ref.name} does not show the weights "
                    "of its attention"
                )
            self._add(layer, weights)

        return hook

    def _add(self, layer: Layer, weights: torch.Tensor) -> None:
        for row, of_row in zip(self.rows, weights, strict=True):
            found = normalised_entropies(
                of_row,
                self._num_tokens(row, layer),
                without_first_token=self.without_first_token,
            )
            self.sums[layer] = self.sums.get(layer, 0.0) + float(found.sum())
            self.counts[layer] = self.counts.get(layer, 0) + found.numel()

    def _num_tokens(self, row: TokenizedRow, layer: Layer) -> int:
        if layer.stack == "encoder" and row.source is not None:
            return len(row.source)
        return len(row.ids)


def _attentions(anatomy: Anatomy) -> dict[str, Layer]:
    """Return the modules of self-attention that make their queries themselves, by path."""
    return {
        site.path.rpartition(".")[0]: layer
        for site in anatomy.sites
        if site.role.family is Family.ATTENTION
        and site.role.part in _MAKES_QUERIES
        and (layer := _layer(site)) is not None
    }


def _layer(site: Site) -> Layer | None:
    if site.stack is None or site.layer is None:
        return None
    return Layer(site.stack, site.layer)


def _weights_among(output: Any) -> torch.Tensor | None:
    """Return the weights among what an attention returns: (rows, heads, queries, keys)."""
    for part in output if isinstance(output, tuple) else ():
        if isinstance(part, torch.Tensor) and part.dim() == 4 and part.shape[-1] == part.shape[-2]:
            # A sink of its own, as GPT-OSS has, takes a share that no key gets.
            shares = part.float().sum(dim=-1)
            if bool((part >= 0).all()) and bool((shares <= 1.01).all()):
                return part
    return None
