"""Documents on paper: typst templates filled with data."""

import threading
from pathlib import Path

import pypdfium2
import pytest
from hatchling.builders.wheel import WheelBuilder

from agreement_service.providers import documents

ROOT = Path(__file__).parents[3]


@pytest.fixture
def hello(tmp_path, monkeypatch):
    """A template of two pages."""
    (tmp_path / "hello.typ").write_text(
        "#let data = json(bytes(sys.inputs.data))\n#set page(width: 20cm, height: 4cm)\n"
        "Olá #data.name\n#pagebreak()\nsegunda\n"
    )
    monkeypatch.setattr(documents, "_FOLDER", tmp_path)
    return "hello"


def _text(pdf):
    with pypdfium2.PdfDocument(pdf) as document:
        return [page.get_textpage().get_text_range() for page in document]


def test_data_is_text_never_markup(hello):
    name = 'Conceição #sys.version *não* _é_ $x$ "q" \\ <a> @b'
    first, second = _text(documents.pdf(hello, {"name": name}))
    assert first.strip() == f"Olá {name}"
    assert second.strip() == "segunda"


def test_the_same_data_give_the_same_bytes(hello):
    assert documents.pdf(hello, {"name": "a"}) == documents.pdf(hello, {"name": "a"})
    assert documents.pdf(hello, {"name": "a"}) != documents.pdf(hello, {"name": "b"})


def test_png_is_the_first_page(hello):
    made = documents.png(hello, {"name": "a"})
    assert made[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(made[16:20], "big")
    assert width == round(20 / 2.54 * documents.DPI)


def test_threads_do_not_mix_their_data(hello):
    made: dict[int, list[str]] = {}

    def render(number: int) -> None:
        made[number] = _text(documents.pdf(hello, {"name": f"n{number}"}))

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {key: pages[0].strip() for key, pages in made.items()} == {k: f"Olá n{k}" for k in range(8)}


def test_a_template_that_is_not_there():
    with pytest.raises(documents.TemplateMissing):
        documents.pdf("nothing", {})


def test_the_wheel_carries_every_template():
    builder = WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    there = {f"agreement_service/templates/{one.name}" for one in documents._FOLDER.iterdir()}
    assert there <= packed
