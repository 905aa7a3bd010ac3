"""How does a choice of columns become changes of the adapters?"""

from collections.abc import Iterable, Iterator, Mapping

from loratlas.dynamic.selection import Column
from loratlas.train.policy import LiveSite, Prune, Silence


def prunes(sites: Mapping[str, LiveSite], kept: Iterable[Column]) -> list[Prune]:
    """Return what takes away all columns but those that are kept, site by site."""
    return [Prune(path, gone) for path, gone in _others(sites, kept) if gone]


def silences(sites: Mapping[str, LiveSite], kept: Iterable[Column]) -> list[Silence]:
    """Return what silences all columns but those that are kept, where that changes anything."""
    return [
        Silence(path, frozenset(others))
        for path, others in _others(sites, kept)
        if set(others) != sites[path].silent
    ]


def revivals(sites: Mapping[str, LiveSite], kept: Iterable[Column]) -> list[Silence]:
    """Return what lets columns that are kept live again, once all others are pruned."""
    silent = {column.path for column in kept if column.number in sites[column.path].silent}
    return [Silence(path, frozenset()) for path in sites if path in silent]


def _others(
    sites: Mapping[str, LiveSite], kept: Iterable[Column]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    stay = {(column.path, column.number) for column in kept}
    for path, site in sites.items():
        yield path, tuple(number for number in site.columns if (path, number) not in stay)
