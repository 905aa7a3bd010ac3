"""Which roles were found so far, and who may still get one?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loratlas.anatomy.graph import Node
from loratlas.anatomy.sites import Family, Role


@dataclass(slots=True)
class Roles:
    """The roles found so far, by path.

    Attributes:
        block_of: the block a path stands in; a path outside blocks is not in it.
        found: the roles.
        why: why a map that is known to do something else has no role.
    """

    block_of: Mapping[str, object]
    found: dict[str, Role] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def give(self, node: Node, family: Family, part: str = "") -> None:
        """Give a role to a map inside a block that has none yet."""
        if node.path in self.block_of:
            self.found.setdefault(node.path, Role(family=family, part=part))

    def free(self, node: Node) -> bool:
        """Whether a map stands in a block and has no role yet."""
        return node.path in self.block_of and node.path not in self.found

    def is_router(self, node: Node) -> bool:
        """Whether a map was found to be a router."""
        role = self.found.get(node.path)
        return role is not None and role.family is Family.ROUTER

    def together(self, first: Node, second: Node) -> bool:
        """Whether two maps stand in one block."""
        return self.block_of.get(first.path) == self.block_of.get(second.path)
