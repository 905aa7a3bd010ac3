"""Subjects of every family, and what their maps read when each row goes by itself."""

from functools import cache

import torch
from scored_subjects import subject_of

import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.train.base import load_base, read_task
from loratlas.train.trial import ModelRef

DATA = DataSpec(
    source="rows.jsonl", format="prompt_completion", train=10, validation=4, test=4, max_length=48
)
CPU = torch.device("cpu")


@cache
def _parts(family, folder):
    families.write(family, folder)
    (folder / "rows.jsonl").write_text(families.prompt_rows(30))
    ref = ModelRef(name=str(folder))
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=CPU)
    task = read_task(ref, DATA.format)
    return base, read(ref.name), prepare(DATA, base.tokenizer, root=folder, task=task)


def family_subject(family, folder, *, rule="all", **changes):
    """Return a subject of a family whose model is written to a folder once."""
    base, anatomy, data = _parts(family, folder)
    changes = {"rows": data.train.rows, "masking": data.masking, "seed": 0} | changes
    rows = changes.pop("rows")
    return subject_of(base, anatomy, rows, rule=rule, **changes)


def read_alone(subject):
    """Return what each site reads of each row that goes by itself: by path, (tokens, d_in) each."""
    base = subject.base
    found = {site.path: [] for site in subject.sites}
    handles = [
        base.model.get_submodule(path).register_forward_hook(
            lambda _module, args, kwargs, _output, path=path: found[path].append(
                (args or tuple(kwargs.values()))[0].flatten(0, -2)
            ),
            with_kwargs=True,
        )
        for path in found
    ]
    with torch.no_grad():
        for row in subject.rows:
            inputs = base.collator([row])
            del inputs["labels"]
            base.model(**inputs)
    for handle in handles:
        handle.remove()
    return found


def num_hooks(model):
    """Return how many forward hooks a model's modules have."""
    return sum(len(module._forward_hooks) for module in model.modules())
