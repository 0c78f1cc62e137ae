"""The questions and sliders of a page with no kernel, in a real browser: a question says what `check`
says in the notebook."""

import re

import lab as desk
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lessonkit.teaching.questions import QUESTIONS
from lessonkit.teaching.quiz import judge_answer

pytest.importorskip(
    "playwright.sync_api", reason='needs Playwright: pip install -c constraints.txt -e ".[dev,browser]"')

ANSWERED = {name: question for name, question in QUESTIONS.items() if question.kind != "function"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with all questions."""
    cells = [new_code_cell(
        f'check("{name}", ...);'
    ) for name in QUESTIONS] + [new_code_cell("show_progress()")]
    path = tmp_path_factory.mktemp("page") / "page.html"
    desk.notebooks.write_page(new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def page(browser, file):
    context = browser.new_context(viewport={"width": 700, "height": 800})
    page = context.new_page()
    page.goto(file.as_uri())
    yield page
    context.close()


def answer(page, name: str, given) -> str:
    """Answer a question with the keyboard alone; return what the page says."""
    form = page.locator(f'form[data-name="{name}"]')
    if QUESTIONS[name].kind == "choice":
        form.locator(f'input[value="{given}"]').focus()
        page.keyboard.press("Space")
    else:
        form.locator("input").fill(given if isinstance(given, str)
                                   else ", ".join(map(repr, np.ravel(given).tolist())))
        form.locator("input").focus()
    page.keyboard.press("Enter")
    return form.locator("[role=status]").inner_text()


def kernel(name: str, given) -> str:
    """What `check` says, but for how far lists of numbers are apart, and the marks of code."""
    said = judge_answer(name, given)[1]
    return re.sub(r"exact: .*\n|shape .*\n|[`*]", "", said)


@pytest.mark.parametrize("name", ANSWERED)
def test_page_says_what_the_kernel_says(page, name):
    question = ANSWERED[name]
    others = list(question.choices) if question.kind == "choice" else [
        np.asarray(question.answer) + 1.2345
    ]
    tries = [question.answer, *(wrong for wrong, _ in question.mistakes), *others]
    if question.kind == "number":
        tries += [100 * question.answer, question.answer + 0.9 * question.tolerance,
                  question.answer - 1.1 * question.tolerance]
    for given in tries:
        if question.kind == "array" and np.shape(given) != np.shape(question.answer):
            continue
        assert answer(page, name, given) == re.sub(r" +", " ", kernel(name, given)), given


@pytest.mark.parametrize("name, typed, begins", [
    ("00.leak", "4/5", "Right."), ("00.leak", " 0,8 ", "Right."), ("00.leak", "80 %", "Right."),
    ("00.leak", "8e-1", "Right."), ("00.leak", ".8", "Right."),
    ("00.leak", "80", "Not yet.\nThat is in percent"),
    ("01.paired", "−0.02", "Not yet.\nThe right size"), ("05.by-hand", "[0.25, 0, 0.75]", "Right."),
    ("05.by-hand", "0.25 0 0.75", "Right."), ("05.by-hand", "1/4, 0, 3 / 4", "Right."),
    ("05.by-hand", "0.25, 0", "The answer is 3 numbers"), ("00.leak", "", "The answer is one number"),
    ("00.leak", "seven", "The answer is one number"), ("00.leak", "0.8 0.8", "The answer is one number"),
    ("00.leak", "1/0", "The answer is one number"), ("00.leak", "<b>x</b>", "The answer is one number"),
])
def test_numbers_as_people_write_them(page, name, typed, begins):
    assert answer(page, name, typed).startswith(begins)


def test_right_answers_are_counted_on_the_front_page_and_a_reload_keeps_them(browser, file):
    context = browser.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    first = page.locator("[data-questions]").first
    assert first.inner_text().startswith("0 of ")
    answer(page, "00.leak", 0.8)
    answer(page, "01.paired", 0.03)
    page.reload()
    assert first.inner_text().startswith("1 of ")
    context.close()


def test_without_scripts_no_field_or_button_is_shown_and_the_solution_can_be_unfolded(browser, file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("form.question").count() == len(QUESTIONS)
    assert not any(part.is_visible() for part in page.locator("form.question :is(input, button)").all())
    form = page.locator('form[data-name="01.verdict"]')
    assert not form.locator("details p").last.is_visible()
    form.locator("summary").last.click()
    assert form.locator("details p").last.is_visible()
    context.close()


def test_a_narrow_window_needs_no_scrolling_sideways(browser, file):
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.goto(file.as_uri())
    wide = page.evaluate("() => [...document.querySelectorAll('form.question')].filter(f => "
                         "f.scrollWidth > f.clientWidth + 2).length")
    page.close()
    assert wide == 0


# --- sliders in a page

@pytest.fixture(scope="module")
def sliders(tmp_path_factory):
    """A page with the two players."""
    cells = [new_code_cell(f'with_slider(draw, 0, 1, 0.5, "{letter}")') for letter in "λε"]
    path = tmp_path_factory.mktemp("page") / "page.html"
    desk.notebooks.write_page(new_notebook(cells=cells), path)
    return path


def test_the_keyboard_moves_a_slider_and_its_picture(browser, sliders):
    page = browser.new_page(viewport={"width": 400, "height": 700})
    page.goto(sliders.as_uri())
    for letter, begin in (("λ", 0.5), ("ε", 0.3)):
        slider, player = page.get_by_role("slider", name=letter), page.locator(
            ".player", has=page.get_by_label(letter)
        )
        picture, seen = player.locator("img"), set()
        assert player.locator(".value").inner_text() == f"{letter} = {begin}"
        slider.focus()
        page.keyboard.press("Home")
        for tenths in range(11):
            value = f"{letter} = {tenths / 10}"
            assert (player.locator(".value").inner_text() == slider.get_attribute("aria-valuetext")
                    == value)
            assert value in picture.get_attribute("alt")
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            seen.add(picture.get_attribute("src"))
            page.keyboard.press("ArrowRight")
        assert len(seen) == 11
        assert picture.evaluate("image => image.getBoundingClientRect().right") <= 400
    page.close()


def test_without_scripts_a_slider_is_a_picture(browser, sliders):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(sliders.as_uri())
    assert (page.locator(".player img").count() == 2
            and all(image.is_visible() for image in page.locator(".player img").all()))
    assert not any(slider.is_visible() for slider in page.locator(".player input").all())
    context.close()
