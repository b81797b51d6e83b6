"""Documents on paper: typst templates of agreement_service/templates filled with data, as PDF or picture.

The same template and data give the same bytes: typst brings its own fonts, the creation date is fixed, no document
reads a clock. Data travels as JSON in `sys.inputs.data`; a template begins with
`#let data = json(bytes(sys.inputs.data))`. Nothing is written to disk and nothing of the data is logged.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, cast

import typst

CREATED = 0
"""Creation date in every document, seconds of the epoch: what was rendered twice has one hash."""
DPI = 200

_FOLDER = Path(str(resources.files("agreement_service"))) / "templates"


class TemplateMissing(Exception):
    """No template of this name is packaged: a mistake of the code, not of the caller."""


def pdf(template: str, data: Mapping[str, object]) -> bytes:
    """The document as PDF; `template` without `.typ`, `data` as JSON allows.

    Raises TemplateMissing, typst.TypstError.
    """
    return _compile(template, data, "pdf")


def png(template: str, data: Mapping[str, object]) -> bytes:
    """The first page as PNG of 200 dots an inch. Raises TemplateMissing, typst.TypstError."""
    return _compile(template, data, "png")


def _compile(template: str, data: Mapping[str, object], kind: Literal["pdf", "png"]) -> bytes:
    path = _FOLDER / f"{template}.typ"
    if not path.is_file():
        raise TemplateMissing(template)
    pages = cast(
        bytes | list[bytes],
        typst.compile(
            str(path),
            root=str(_FOLDER),
            font_paths=_fonts(),
            format=kind,
            ppi=DPI if kind == "png" else None,
            sys_inputs={"data": json.dumps(data, ensure_ascii=False)},
            timestamp=CREATED,
        ),
    )
    return pages[0] if isinstance(pages, list) else pages


@functools.cache
def _fonts() -> typst.Fonts:
    """Those inside typst: a machine's own fonts would change the document. Read once, a third of the time of a page."""
    return typst.Fonts(include_system_fonts=False)
