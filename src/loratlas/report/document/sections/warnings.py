"""What should a reader know about the placements and data before trusting the figures?"""

from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Section, Table, columns, text
from loratlas.report.document.words import sentence


def warnings(facts: Facts) -> Section:
    """Return the warnings of every placement, and what was said of the data."""
    rows = [
        [text(record.name), text(lint["code"]), text(lint["message"])]
        for record in facts.placements
        for lint in record.warnings
    ]
    table = Table(
        name="warnings",
        title="Warnings of placements",
        columns=columns("placement", "code", "warning", words=("code", "warning")),
        rows=rows,
    )
    return Section(
        name="warnings",
        title="Warnings",
        words=tuple(sentence(line) for line in facts.setting["data_report"] or []),
        tables=(table,) if rows else (),
    )
