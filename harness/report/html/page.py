"""A report's contents as one HTML file: style, script, figures and data inside, nothing to be fetched."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.report.grids import DASH
from harness.report.html.completions import ABOUT, TITLES
from harness.report.html.contents import Contents
from harness.report.html.forest import forest
from harness.report.html.pack import pack
from harness.report.render_claims import claim_notes, claim_table

ASSETS = Path(__file__).parent / "assets"

_SCRIPTS = ("uplot/uPlot.iife.min.js", "dom.js", "charts.js", "compare.js", "browser.js")
_STYLES = ("uplot/uPlot.min.css", "style.css")


def render_page(contents: Contents, *, is_static: bool = False) -> str:
    """The file's text; the same contents give the same text.

    Args:
        contents: From :func:`harness.report.html.contents.gather`.
        is_static: Whether it is for print: without script and without completions.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration}
    script = "" if is_static else _script()
    return environment.get_template("page.html.j2").render(
        report=contents,
        is_static=is_static,
        style=Markup("\n".join((ASSETS / name).read_text() for name in _STYLES)),
        script=Markup(script),
        policy=_policy(script),
        forest=forest(contents.claims or ()),
        claim_table=claim_table,
        claim_notes=claim_notes(contents.claims or ()),
        collections_about=ABOUT,
        index=_index(contents),
        packed_charts=pack({"curves": contents.curves, "schedules": contents.schedules}),
    )


def _script() -> str:
    licence = (ASSETS / "uplot" / "LICENSE").read_text()
    return "\n".join([f"/*\n{licence}\n*/", *((ASSETS / name).read_text() for name in _SCRIPTS)])


def _policy(script: str) -> str:
    """What the page may do: run its own script by its digest, show pictures that it brings along, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}'" if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def _index(contents: Contents) -> dict[str, Any]:
    """What the script needs to know before it unpacks anything."""
    return {
        "runs": [
            {"id": run.run_id, "label": run.label, "method": run.method, "source": run.source, "seed": run.seed}
            for run in contents.runs
        ],
        "colors": contents.colors,
        "collections": [
            {
                "key": one.key,
                "kind": one.kind,
                "title": TITLES[one.kind],
                "about": ABOUT[one.kind],
                "note": one.note,
                "task": one.task,
                "numTexts": one.num_texts,
                "numPages": len(one.pictures),
            }
            for one in contents.collections
        ],
    }


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
