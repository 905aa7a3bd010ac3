"""What reaches a terminal: text of any origin, and no letter of it that the terminal obeys."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from loratlas.printable import printable


class SafeConsole(Console):
    """A console that shows what others would obey.

    Rich drops five control characters and lets the one through that begins every command to a
    terminal; cells of tables come from models, data and errors.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the pieces of a renderable; commands of Rich's own stay as they are."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=printable(segment.text, keep="\n"))
