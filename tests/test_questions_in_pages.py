"""tools/questions.py: every question of the lessons is a form in their pages, which says something
without scripts, too."""

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lessonkit.teaching.questions import QUESTIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import questions  # noqa: E402
import website  # noqa: E402


class Form(HTMLParser):
    """The tags of a form, the text that a reader sees at once, and what is folded."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.seen, self.folded = [], [], "", ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), list(self.open)))
        if tag not in ("input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "details" in self.open and "summary" not in self.open:
            self.folded += text
        else:
            self.seen += text


def plain(text: str) -> str:
    return re.sub(r"[`*\s]", "", text)


@pytest.mark.parametrize("name", QUESTIONS)
def test_without_scripts_a_question_has_folded_hint_and_solution_and_no_dead_buttons(name):
    question, form = QUESTIONS[name], Form(questions.form(name))
    for text in (question.text, *question.choices.values()):
        assert plain(text) in plain(form.seen)
    for text in (question.hint, question.why):
        assert plain(text) in plain(form.folded) and plain(text) not in plain(form.seen)
    for tag, attributes, parents in form.tags:
        if tag in ("input", "button"):
            assert "hidden" in attributes or form_hides(form, parents, tag), (tag, attributes)


def form_hides(form: Form, parents: list[str], tag: str) -> bool:
    """Whether an element lies in a label that is hidden."""
    return parents[-1] == "label" and any(t == "label" and "hidden" in a for t, a, _ in form.tags)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_field_has_a_label_and_the_answer_is_announced(name):
    form = Form(questions.form(name))
    fields = [(attributes, parents) for tag, attributes, parents in form.tags if tag == "input"]
    assert all(parents[-1] == "label" for _, parents in fields)
    assert "legend" in [tag for tag, _, _ in form.tags]
    said = [attributes for _, attributes, _ in form.tags if attributes.get("role") == "status"]
    assert len(said) == (QUESTIONS[name].kind != "function") and bool(fields) == bool(said)


def test_every_question_is_asked_once_in_its_own_lesson_and_found_there():
    found = [(path.stem[:2], questions.asked(cell.source)) for path in notebooks.notebooks()
             for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
             and questions.asked(cell.source)]
    assert sorted(name for _, name in found) == sorted(QUESTIONS)
    assert all(name.startswith(lesson) for lesson, name in found)


def test_a_cell_with_an_answer_keeps_what_it_prints():
    out = [new_output("stream", text="Right.")]
    cells = [new_code_cell('ask("00.leak")\ncheck("00.leak", 0.8);', outputs=out),
             new_code_cell("1 + 1"), new_code_cell('check("no.such", ...)', outputs=out)]
    notebook = questions.with_forms(new_notebook(cells=cells))
    assert [cell.outputs for cell in notebook.cells] == [out, [], out]


def test_style_and_script_stand_once_in_a_page():
    cells = [new_code_cell(f'check("{name}", ...);') for name in ("00.leak", "01.verdict", "01.paired")]
    shown = [cell.outputs[0].data["text/html"]
             for cell in questions.with_forms(new_notebook(cells=cells)).cells]
    assert [text.count("<style>") for text in shown] == [1, 0, 0]
    assert [text.count("<script>") for text in shown] == [0, 0, 1]
    assert shown[2].index("<form") < shown[2].index("<script>")


def test_a_page_and_the_site_have_the_forms(tmp_path):
    path = notebooks.NBS / "01_comparison.ipynb"
    of_lesson = [name for name in QUESTIONS if name.startswith("01.")]
    notebooks.write_page(nbformat.read(path, as_version=4), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    site = "".join(output.data.get("text/html", "") for cell in website.source_of_notebook(path).cells
                   for output in cell.get("outputs", []) if output.output_type == "display_data")
    for text in (page, site):
        assert re.findall(r'data-name="([^"]+)"', text) == of_lesson


def test_the_front_page_counts_what_there_is():
    path = notebooks.NBS / "index.ipynb"
    shown = "".join(output.get("data", {}).get("text/html", "")
                    for cell in website.source_of_notebook(path).cells
                    for output in cell.get("outputs", []))
    listed = [json.loads(html.unescape(names))
              for names in re.findall(r"data-questions='([^']+)'", shown)]
    assert sum(listed, []) == sorted(QUESTIONS, key=lambda name: name[:2])
