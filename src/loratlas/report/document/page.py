"""The report as one page that needs nothing else: no network, no server, no second file.

A browser is told so too: the page's own policy (Content-Security-Policy) lets it fetch nothing and
run only the two scripts whose hashes it names, so that markup which came in with a name would
stay without effect even if it were not escaped. It is escaped.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loratlas.printable import printable
from loratlas.report.document.charts import readable
from loratlas.report.document.pictures import VEGA_LITE, drawn
from loratlas.report.document.pieces import Section
from loratlas.report.document.style import VERDICTS, config

_PACKAGE = "loratlas.report.document"
_EXPOSED = "window.vegaEmbed = vegaEmbed;"
"""What of the library the page's own script calls."""


def page(head: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        head: what stands at its top: ``title``, ``headline``, ``chips`` (short facts), ``version``.
        sections: what stands in it.
    """
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    library = vl_convert.javascript_bundle(_EXPOSED, vl_version=VEGA_LITE)
    scripts = [_script(library), _template("page.js")]
    return environment.get_template("page.html").render(
        **head,
        sections=sections,
        figures=_figures(sections),
        files={chart.stem for chart in drawn(sections)},
        signs={verdict: sign for verdict, (_, _, sign) in VERDICTS.items()},
        style=Markup(_template("page.css")),
        notice=Markup(_template("vega-licence.txt")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
    )


def _shown(value: Any) -> Any:
    """Return text without letters that turn a line around or cannot be seen; markup is ours."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Return what the page's script draws: charts by figure, and the two themes."""
    figures = {
        figure.name: [readable(chart.spec) for chart in figure.charts]
        for section in sections
        for figure in section.figures
    }
    return {"figures": figures, "themes": {"light": config("light"), "dark": config("dark")}}


def _template(name: str) -> str:
    return files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Return a script that cannot end its own element; only strings can hold these letters."""
    return text.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
