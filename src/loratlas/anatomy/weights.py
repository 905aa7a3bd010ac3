"""Which weights of a model can take an adapter: modules, and parameters without one?

Every linear map and embedding that is a module is listed, and every bare parameter of two
or three dimensions that the forward pass multiplies with a value. Three dimensions are
the stacked matrices of experts, unless the product sums over the first: then an adapter,
which takes the first for a number of experts, would not fit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from loratlas.anatomy.blocks import Place, is_map, is_site
from loratlas.anatomy.follow import Flow
from loratlas.anatomy.graph import Kind, Node
from loratlas.anatomy.sites import SiteKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A site before its role is known.

    Attributes:
        adaptable: False for a parameter of three dimensions that is no stack of matrices.
    """

    path: str
    kind: SiteKind
    d_in: int
    d_out: int
    num_experts: int | None = None
    adaptable: bool = True


def weights(model: PreTrainedModel, flow: Flow, places: Mapping[str, Place]) -> list[Weight]:
    """List what can be a site, in the order in which the model holds its modules."""
    used = {n.path: n for n in flow.maps if n.kind is Kind.MAP}
    found: list[Weight] = []
    for path, module in model.named_modules():
        if is_site(module):
            found.append(_module_weight(path, module))
        else:
            silent = path in places and (flow.failure is not None or path not in flow.ran)
            found += _bare_weights(path, module, used, silent=silent)
    return found


def _module_weight(path: str, module: nn.Module) -> Weight:
    if isinstance(module, nn.Embedding):
        shape = (module.num_embeddings, module.embedding_dim)
        return Weight(path=path, kind="embedding", d_in=shape[0], d_out=shape[1])
    if isinstance(module, nn.Linear):
        return Weight(path=path, kind="linear", d_in=module.in_features, d_out=module.out_features)
    assert is_map(module)
    d_in, d_out = module.get_parameter("weight").shape
    return Weight(path=path, kind="conv1d", d_in=d_in, d_out=d_out)


def _bare_weights(
    path: str, module: nn.Module, used: Mapping[str, Node], *, silent: bool
) -> Iterator[Weight]:
    """Yield the parameters that a module holds itself and that are maps.

    Of a module in a block that did not run, the stacks of matrices are taken for experts.
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return
    for name, parameter in module.named_parameters(recurse=False):
        inner = f"{path}.{name}" if path else name
        if inner in used and parameter.dim() in (2, 3):
            yield _parameter_weight(inner, parameter, used[inner])
        elif silent and parameter.dim() == 3 and parameter.shape[0] > 1:
            num_experts, d_out, d_in = parameter.shape
            yield Weight(path=inner, kind="expert", d_in=d_in, d_out=d_out, num_experts=num_experts)


def _parameter_weight(path: str, parameter: nn.Parameter, node: Node) -> Weight:
    stacked = parameter.dim() == 3
    fits = not stacked or sorted(parameter.shape[1:]) == sorted((node.d_in, node.d_out))
    return Weight(
        path=path,
        kind="expert",
        d_in=node.d_in,
        d_out=node.d_out,
        num_experts=parameter.shape[0] if stacked and fits else None,
        adaptable=fits,
    )


def head_path(model: PreTrainedModel) -> str | None:
    """Return the path of the language model head, None without one."""
    head = _head(model)
    if head is None:
        return None
    return next((path for path, module in model.named_modules() if module is head), None)


def tied_head(model: PreTrainedModel) -> bool:
    """Return whether the head shares its weights with the input embedding."""
    head, table = _head(model), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(table, "weight", 0)


def _head(model: PreTrainedModel) -> nn.Module | None:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head if isinstance(head, nn.Module) else None
