"""Every lesson in JupyterLab in a real browser, as a reader has it: `make test-browser`. What the
browser shows is kept in `_browser/`."""

import re

import nbformat
import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason='needs Playwright: pip install -c constraints.txt -e ".[dev,browser]"')
pytest.importorskip("jupyterlab",
                    reason='needs JupyterLab: pip install -c constraints.txt -e ".[dev,browser]"')

import lab as desk  # noqa: E402

from lessonkit.teaching.questions import QUESTIONS  # noqa: E402

pytestmark = pytest.mark.timeout(desk.RUN_SECONDS + 300)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(scope="session")
def lab(browser, folder):
    desk.interrupt_as_usual()
    with desk.jupyter_lab(folder) as running:
        yield running


@pytest.fixture(scope="module", params=desk.notebooks.lessons(), ids=lambda path: path.stem)
def lesson(request, browser, lab):
    """A lesson that has been run from top to bottom."""
    context = browser.new_context(viewport={"width": desk.WIDTH, "height": desk.HEIGHT})
    opened = desk.Lesson(context.new_page(), request.param)
    try:
        opened.open(*lab)
        opened.finished = opened.run()
        yield opened
    finally:
        opened.shut()
        context.close()


def code_cells(lesson) -> list[tuple[int, dict]]:
    return [(number, cell) for number, cell in enumerate(lesson.cells()) if cell["type"] == "code"
            and cell["source"].strip()]


def test_every_cell_runs_without_an_error(lesson):
    assert lesson.take_pictures()  # first, so that they are there when a test fails
    errors = [f"{lesson.label(number)}\n{output['ename']}: {output['evalue']}"
              for number, cell in code_cells(lesson) for output in cell["outputs"]
              if output["output_type"] == "error"]
    assert not errors, "\n\n".join(errors)
    assert ([lesson.label(number) for number, cell in code_cells(lesson) if not cell["count"]]
            == []), "these cells did not run"
    assert lesson.finished


def test_nothing_is_printed_to_the_error_stream(lesson):
    assert [(lesson.label(number), output["text"][:300]) for number, cell in code_cells(lesson)
            for output in cell["outputs"] if output.get("name") == "stderr"] == []


def test_pictures_are_there(lesson):
    stored = nbformat.read(lesson.path, as_version=4).cells
    expected = {number for number, cell in enumerate(stored)
                if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))}
    assert expected, "the stored lesson has no picture"
    shown = {number: lesson.shown(number) for number in expected}
    assert ([lesson.label(number) for number, drawn in shown.items() if not drawn or not all(drawn)]
            == []), "no picture under these"


@pytest.mark.parametrize("part", ["code", "output", "text"])
def test_nothing_has_to_be_scrolled_sideways(lesson, part):
    found = [f"{lesson.label(number)}: {pixels} pixels too wide"
             for number, what, pixels in lesson.too_wide() if what == part]
    where = f"{part} in a window of {desk.WIDTH} pixels, with JupyterLab's list of files open:"
    assert not found, "\n".join([where, *found])


def test_a_slider_changes_its_picture(lesson):
    views = lesson.page.locator(".jp-OutputArea-output .widget-box:has(.noUi-handle):has(img)")
    with_sliders = [cell for _, cell in code_cells(lesson) if re.search(
        r"^with_slider\(", cell["source"], flags=re.MULTILINE
    )]
    assert views.count() == len(with_sliders)
    if not with_sliders:
        pytest.skip("this lesson has no slider")
    for view in views.all():
        picture = view.locator("img").first
        before = picture.get_attribute("src")
        view.locator(".noUi-handle").first.focus()
        lesson.page.keyboard.press("ArrowRight")
        playwright.expect(picture).not_to_have_attribute("src", before, timeout=30_000)
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def wrong_answer(question):
    """Some wrong answer, such as a known mistake."""
    return next((wrong for wrong, _ in question.mistakes if not callable(wrong)), 12345)


def test_a_wrong_and_a_right_answer_say_so(lesson, folder):
    # the first question of each kind that a reader answers with a number, numbers or a letter
    asked = {}
    for number, cell in code_cells(lesson):
        if (found := re.search(r"^check\(\"([^\"]+)\", \.\.\.\)", cell["source"],
                               flags=re.MULTILINE)) and found[1] in QUESTIONS:
            if QUESTIONS[found[1]].kind != "function":
                asked.setdefault(QUESTIONS[found[1]].kind, (number, cell["source"], found[1]))
    if not asked:
        pytest.skip("this lesson asks nothing that is answered with a number or a letter")
    for number, source, name in asked.values():
        question = QUESTIONS[name]
        for answer, begins in ((wrong_answer(question), "Not yet."), (question.answer, "Right.")):
            typed = source.replace(f'check("{name}", ...)', f'check("{name}", {answer!r})')
            said = lesson.type_and_run(number, typed)
            assert re.search(rf"^{re.escape(begins)}", said,
                             flags=re.MULTILINE), f"{name}, answer {answer!r}: {said}"
        assert name in (folder / "state" / "progress.json").read_text(), "the right answer was not noted"
    lesson.page.screenshot(path=desk.SCREENSHOTS / f"{lesson.name}-answer.png")
