"""What does each linear map do, judged by where its output goes in the forward pass?

No name of a module is read. Maps whose output reaches an attention product are query, key
or value; the map that reads the result is the output; an up map reaches its down map
through an activation, a gate through an activation and a product. Parts of one map that
go different ways make it a fused one. What fits no pattern has no role here.
"""

from collections.abc import Mapping, Sequence

from loratlas.anatomy.attention import (
    inputs_of_attention,
    latent_attention,
    low_rank_outputs,
    outputs_of_attention,
    routers_of_attention,
)
from loratlas.anatomy.feed_forward import feed_forward
from loratlas.anatomy.graph import Kind, Node
from loratlas.anatomy.reasons import find_reasons
from loratlas.anatomy.recurrence import recurrence
from loratlas.anatomy.roles import Roles


def find_roles(
    maps: Sequence[Node],
    attentions: Sequence[Node],
    block_of: Mapping[str, object],
    *,
    causal: bool,
) -> Roles:
    """Return the role of each map inside a block whose part in the forward pass is known.

    Args:
        maps: applications of maps, in the order they ran.
        attentions: attention products, in the order they ran.
        block_of: the block that each path stands in, for paths inside blocks.
        causal: whether the model looks back only.
    """
    roles = Roles(block_of)
    linear = [node for node in maps if node.kind is Kind.MAP]
    inputs_of_attention(attentions, roles)
    outputs_of_attention(linear, roles)
    latent_attention(linear, roles)
    routers_of_attention(linear, roles)
    feed_forward(linear, roles)
    low_rank_outputs(linear, roles)
    recurrence(linear, roles, causal=causal)
    find_reasons(linear, attentions, roles)
    return roles
