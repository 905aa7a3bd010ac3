"""What do the segments of one model in one setting have in common?

A segment depends on its shape, on the adapters in it and on whether its input wants a gradient,
and on nothing else; those that agree in these are accounted for once.
"""

from loratlas.cost.layout import Layout, Stack
from loratlas.cost.segment import Segment, Stretch, run_checkpointed, run_segment
from loratlas.cost.setting import Setting
from loratlas.cost.tape import INDEX

Key = tuple[object, ...]


class Book:
    """The segments of one model in one setting, whatever the placement, each made once."""

    def __init__(self, layout: Layout, setting: Setting) -> None:
        self._layout = layout
        self._setting = setting
        self._width = layout.head.d_in if not layout.transforms else layout.transforms[0].d_in
        self._known: dict[Key, Segment] = {}

    @property
    def layout(self) -> Layout:
        """The model."""
        return self._layout

    @property
    def setting(self) -> Setting:
        """The setting."""
        return self._setting

    def tokens(self, stack: Stack) -> int:
        """Return the length of a stack's rows."""
        workload = self._setting.workload
        if len(self._layout.stacks) > 1 and stack.name == "decoder":
            return workload.decoder_tokens or workload.tokens
        return workload.tokens

    def elements(self, tokens: int) -> int:
        """Return the elements of what runs between blocks."""
        return self._setting.workload.rows * tokens * self._width

    def segment(self, key: Key, stretch: Stretch, *, checkpointed: bool = False) -> Segment:
        """Return the account of a stretch, made once for each key."""
        found = self._known.get(key)
        if found is None:
            found = (run_checkpointed if checkpointed else run_segment)(stretch)
            self._known[key] = found
        return found

    def shared(self, stack: Stack) -> tuple[int, int, int]:
        """Return the bytes that the blocks of a stack share: until it ends, or until the step does.

        Masks and relative positions end with the stack, for every block keeps its own copy of
        what it needs; ids and labels stay.

        Returns:
            bytes that end with the stack, bytes that stay, and those of rotary angles, which
            stay where a block keeps them for its gradients.
        """
        setting, workload = self._setting, self._setting.workload
        blueprint, tokens = setting.blueprint, self.tokens(stack)
        staying = 3 * workload.rows * tokens * INDEX
        ending = angles = 0
        if setting.attends_in_steps:
            ending += workload.rows * tokens * tokens * setting.width * blueprint.code.num_masks
        elif workload.padded:
            ending += workload.rows * tokens * tokens * blueprint.code.num_masks
        if blueprint.code.positions == "relative":
            across = len(self._layout.stacks) > 1 and stack is self._layout.stacks[-1]
            pairs = tokens * (tokens + (workload.tokens if across else 0))
            ending += (blueprint.num_heads or 1) * pairs * setting.width
        if blueprint.code.positions == "rotary":
            head = stack.layers[0].sites["attention.o"].d_in // (blueprint.num_heads or 1)
            turned = round(head * (blueprint.rotary_share or 1))
            angles = 2 * tokens * turned * setting.width * blueprint.code.num_angles
        return ending, staying, angles
