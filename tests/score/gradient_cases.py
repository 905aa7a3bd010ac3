"""Tiny models and rows made by hand, and their gradients by autograd alone."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.placement.instance import model_of
from loratlas.placement.placement import LoraSpec
from loratlas.score.scorer import Subject
from loratlas.train.base import Base
from loratlas.train.trial import ModelRef, TrainingSpec

VOCABULARY = 64
PAD = 0


def rows_of(count, *, seed=0, task="causal", shortest=4, longest=11):
    """Rows of many lengths; the last half of each is scored."""
    chance = np.random.default_rng(seed)
    return tuple(_row(number, chance, task, shortest, longest) for number in range(count))


def _row(number, chance, task, shortest, longest):
    def drawn():
        length = int(chance.integers(shortest, longest + 1))
        return frozen_ids(chance.integers(1, VOCABULARY, size=length))

    ids = drawn()
    scored = np.arange(len(ids)) >= len(ids) // 2
    row = TokenizedRow(row=number, ids=ids, scored=frozen_marks(scored), num_bytes=0)
    if task == "masked":
        return replace(row, masked=frozen_ids(np.where(scored, VOCABULARY - 1, ids)))
    if task == "seq2seq":
        return replace(row, source=drawn())
    if task == "classification":
        return replace(row, scored=frozen_marks(scored & False), label=int(chance.integers(2)))
    return row


def subject_of(model, *, task="causal", rows=None, paths=None, kind=None, **more):
    """A subject: the sites of a model inside its blocks, or those of some paths."""
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    anatomy = model_of(model).anatomy
    sites = tuple(
        site
        for site in anatomy.sites
        if (site.path in paths if paths else site.in_block and site.kind != "embedding")
        and (kind is None or site.kind == kind)
    )
    base = Base(
        ref=ModelRef(name="tiny"), model=model, device=torch.device("cpu"), digest="",
        tokenizer=SimpleNamespace(pad_token_id=PAD, eos_token_id=PAD), num_parameters=0, task=task,
    )  # fmt: skip
    settings = {
        "rows": rows_of(6, task=task) if rows is None else rows,
        "lora": LoraSpec(rank=4, alpha=8), "training": TrainingSpec(), "seed": 0, "batch": 4,
    } | more  # fmt: skip
    return Subject(base=base, anatomy=anatomy, sites=sites, **settings)


def loss_of(subject, row):
    """The sum of -ln p over what is scored of one row, by hand."""
    model, task = subject.base.model, subject.base.task

    def batch(array):
        return torch.from_numpy(np.array(array, dtype=np.int64))[None]

    if task == "classification":
        logits = model(input_ids=batch(row.ids)).logits
        return torch.nn.functional.cross_entropy(logits, torch.tensor([row.label]))
    wanted = batch(row.ids)[0]
    if task == "seq2seq":
        before = [model.config.decoder_start_token_id, *row.ids[:-1]]
        logits = model(input_ids=batch(row.source), decoder_input_ids=batch(before)).logits[0]
    else:
        read = row.ids if row.masked is None else row.masked
        logits = model(input_ids=batch(read)).logits[0]
    if task == "causal":
        logits, wanted, scored = logits[:-1], wanted[1:], row.scored[1:]
    else:
        scored = row.scored
    log_p = torch.log_softmax(logits, dim=-1).gather(1, wanted[:, None])[:, 0]
    return -log_p[torch.from_numpy(np.array(scored))].sum()


def weight_of(model, site):
    return model.get_parameter(site.path if site.kind == "expert" else f"{site.path}.weight")


def gradients_by_autograd(subject):
    """G_n of each site, scaled so that their mean is the gradient of the training loss.

    Returns one tensor a site, of shape (rows, maps, d_out, d_in), in float64.
    """
    weights = [weight_of(subject.base.model, site) for site in subject.sites]
    mean_scored = np.mean([row.num_scored for row in subject.rows])
    with torch.enable_grad():
        for weight in weights:
            weight.requires_grad_(True)
        by_row = [
            torch.autograd.grad(loss_of(subject, row), weights, materialize_grads=True)
            for row in subject.rows
        ]
        for weight in weights:
            weight.requires_grad_(False)
    found = []
    for site, gradients in zip(subject.sites, zip(*by_row, strict=True), strict=True):
        stacked = torch.stack(gradients).double() / mean_scored
        stacked = stacked.reshape(len(stacked), -1, *stacked.shape[-2:])
        found.append(stacked if stacked.shape[2:] == (site.d_out, site.d_in) else stacked.mT)
    return found


def mean_gradients(subject):
    """The gradient of the training loss at each site, shape (maps, d_out, d_in)."""
    return [each.mean(0) for each in gradients_by_autograd(subject)]


def energies(subject):
    """The energy of each row at each site, shape (rows, sites)."""
    found = [each.square().sum((1, 2, 3)) for each in gradients_by_autograd(subject)]
    return torch.stack(found, dim=1).numpy()


def as_linear(model):
    """Replace every Conv1D by the Linear with the transposed weight."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = torch.nn.Linear(module.nx, module.nf)
            linear.weight.data = module.weight.data.T.contiguous()
            linear.bias.data = module.bias.data
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, linear)
    return model
