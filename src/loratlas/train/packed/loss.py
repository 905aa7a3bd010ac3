"""What does each trial lose on what it predicts, and which gradient follows?

The head is computed only where something is predicted, a chunk at a time: a chunk's logits are
gone before the next one's are made. The loss is the trial's own, Σ nll / Σ scored predictions of
its whole accumulation window, as Trainer has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch

from loratlas.train.packed.flow import Flow, Passed
from loratlas.train.packed.sites import Span

# Logits that are held at once: 256 MiB in fp32.
_MOST_LOGITS = 2**26


def backward(flow: Flow, passed: Passed, num_scored: Mapping[int, int]) -> dict[int, torch.Tensor]:
    """Take the gradient of each trial's loss into its slot.

    Args:
        flow: what the rows went through.
        passed: the pass.
        num_scored: scored predictions of each trial's whole window.

    Returns:
        Σ nll of each trial in this pass, in nats, as float64 scalars.
    """
    spans = scored_spans(passed)
    gradients, losses = [], []
    for chunk in chunks(flow, spans):
        part = slice(chunk[0].start, chunk[-1].stop)
        weight = [torch.full((s.stop - s.start,), 1 / num_scored[s.slot]) for s in chunk]
        hidden = passed.hidden[part].detach().requires_grad_(passed.hidden.requires_grad)
        logits = flow.logits(hidden, chunk)
        nll, gradient = _nll_and_gradient(
            logits.detach(), passed.targets.wanted[part], torch.cat(weight).to(logits.device)
        )
        torch.autograd.backward(logits, gradient)
        losses.append(nll)
        gradients.append(hidden.grad)
    if passed.hidden.requires_grad:
        given = torch.cat([each for each in gradients if each is not None])
        torch.autograd.backward(passed.hidden, given)
    found = torch.cat(losses).double()
    return {span.slot: found[span.start : span.stop].sum() for span in spans}


def scored_spans(passed: Passed) -> list[Span]:
    """Return which predictions of a pass belong to which trial."""
    counts = [sum(row.num_scored for row in unit.rows) for unit in passed.units]
    starts = [sum(counts[:number]) for number in range(len(counts) + 1)]
    return [
        Span(unit.slot, start, stop)
        for unit, (start, stop) in zip(passed.units, pairwise(starts), strict=True)
    ]


def chunks(flow: Flow, spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield what goes through the head together: all trials alike, or one where it is adapted."""
    most = max(1, _MOST_LOGITS // flow.vocabulary)
    together = [[span] for span in spans] if _head_is_adapted(flow) else [list(spans)]
    for joint in together:
        start, stop = joint[0].start, joint[-1].stop
        for begin in range(start, stop, most):
            end = min(begin + most, stop)
            yield [
                Span(span.slot, max(span.start, begin), min(span.stop, end))
                for span in joint
                if span.start < end and span.stop > begin
            ]


def _nll_and_gradient(
    logits: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -ln p in fp32, shape (tokens,), and the gradient of its weighted sum, as the logits.

    Written out because autograd keeps and fills several tensors of the logits' size for it.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    nll = -log_p.gather(1, wanted[:, None])[:, 0]
    gradient = log_p.exp_()
    gradient[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
    return nll, gradient.mul_(weight[:, None]).to(logits.dtype)


def _head_is_adapted(flow: Flow) -> bool:
    return any(
        adapter.site.layer is None for slot in flow.slots for adapter in slot.placement.adapters
    )
