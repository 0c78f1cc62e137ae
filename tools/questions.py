"""The lessons' questions in pages that have no kernel: forms that say whether an answer is right, with
the same hints."""

import html
import json
import re

import nbformat
import numpy as np

from lessonkit.teaching.questions import QUESTIONS, Question
from lessonkit.teaching.quiz import judge_answer, progress, right_answer

STYLE = """<style>
.question { border-left: 3px solid currentColor; padding: 0.2em 0 0.2em 1em; margin: 0.5em 0;
  max-width: 48em;
  font-family: system-ui, sans-serif; font-size: 1rem; line-height: 1.5; white-space: normal; }
.question fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
.question legend { padding: 0; margin: 0 0 0.5em; float: none; }
.question label { display: block; padding: 0.15em 0 0.15em 1.6em; text-indent: -1.6em; }
.question input[type=text] { font: inherit; width: 14em; max-width: 60%;
  padding: 0.1em 0.4em; margin: 0 0.4em; }
.question button { font: inherit; padding: 0.1em 1em; margin: 0.3em 0; cursor: pointer; }
.question :is(input, button, summary):focus-visible { outline: 3px solid #2f7fd0; outline-offset: 2px; }
.question summary { cursor: pointer; }
.question [hidden] { display: none; }
.question details pre { white-space: pre-wrap; }
.question [role=status] { margin: 0.3em 0; }
.question [role=status].right { border-left: 6px solid #1a7f37; padding-left: 0.6em; }
.question [role=status].wrong { border-left: 6px solid #9a6700; padding-left: 0.6em; }
</style>"""

# Runs in the page, after the forms. What needs it is hidden until then, so that a page without scripts
# has no dead buttons. Which questions were answered rightly is noted in the browser, by name, for the
# front page.
SCRIPT = r"""<script>
(() => {
  const PLACE = "lessonkit.answered";
  const answered = () => {
    try { return JSON.parse(localStorage.getItem(PLACE)) || {}; } catch { return {}; } };
  const note = name => {
    const now = {...answered(), [name]: new Date().toISOString()};
    try { localStorage.setItem(PLACE, JSON.stringify(now)); } catch { }
  };
  const number = text => {  // also 4/5, 80 % and 0,8
    const found = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?:\/(\d+\.?\d*))?(%?)$/i.exec(text);
    return found ? found[1] / (found[2] || 1) / (found[3] ? 100 : 1) : NaN;
  };
  const numbers = (text, wanted) => {
    text = text.replace(/[\u2212\u2013]/g, "-").replace(/\s*([\/%])/g, "$1").replace(/\/\s+/g, "/");
    text = text.replace(/[\[\]()]/g, " ").trim();
    if (wanted === 1 && !text.includes(".")) text = text.replace(",", ".");
    return text.split(/[\s,;]+/).map(number);
  };
  const near = (one, other, tolerance) =>
    one.length === other.length && 
    one.every((value, place) => Math.abs(value - other[place]) <= tolerance);
  const judged = (form, {cases, otherwise, wanted}) => {
    if (!wanted) {
      const chosen = form.querySelector("input:checked");
      return chosen ? cases.find(one => one.answer === chosen.value)
        : {text: "Choose one of the answers."};
    }
    const answer = numbers(form.querySelector("input").value, wanted);
    if (answer.length !== wanted || answer.some(value => !Number.isFinite(value)))
      return {text: wanted === 1 ? "The answer is one number, such as 0.25."
        : `The answer is ${wanted} numbers with commas between them.`};
    return cases.find(one => near(answer, one.answer, one.tolerance)) || {right: false, text: otherwise};
  };
  for (const form of document.querySelectorAll("form.question")) {
    form.querySelectorAll("[hidden]").forEach(part => { part.hidden = false; });
    const said = form.querySelector("[role=status]");
    if (!said) continue;
    form.addEventListener("submit", event => {
      event.preventDefault();
      const {right, text} = judged(form, JSON.parse(form.dataset.cases));
      said.className = right ? "right" : right === false ? "wrong" : "";
      said.innerHTML = text;
      if (right) note(form.dataset.name);
    });
  }
  for (const line of document.querySelectorAll("[data-questions]")) {
    const names = JSON.parse(line.dataset.questions), done = answered();
    const count = names.filter(name => name in done).length;
    line.textContent = `${count} of ${names.length} questions answered in this browser`;
  }
})();
</script>"""


def as_html(text: str) -> str:
    """A text with the `code` and *stress* of Markdown, as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    text = re.sub(r"(?<![\w*])\*(\S[^*\n]*\S|\S)\*(?![\w*])", r"<em>\1</em>", text)
    return text.replace("\n", "<br>")


def cases(name: str) -> list[dict]:
    """The answers of which there is something to say, in the order in which they are looked for, as
    `judge_answer` has it."""
    question = QUESTIONS[name]
    known = [(question.answer, question.why), *question.mistakes]
    if question.kind == "choice":
        return [{"answer": letter, "right": letter == question.answer,
                 "text": as_html(judge_answer(name, letter)[1])} for letter in question.choices]
    found = [{"answer": np.ravel(answer).tolist(), "tolerance": question.tolerance, "right": not place,
              "text": as_html(("Not yet." if place else "Right.") + f"\n{remark}")}
             for place, (answer, remark) in enumerate(known)]
    if question.kind == "number":  # a share that is given in percent
        percent = 100 * question.answer
        right, remark = judge_answer(name, percent)
        found.append({"answer": [percent], "tolerance": 100 * question.tolerance, "right": right,
                      "text": as_html(remark)})
    return found


def entry(name: str, question: Question) -> str:
    """What a reader fills in."""
    if question.kind == "function":
        return "<p>Write the function in the notebook, where <code>check</code> tries it.</p>"
    check = '<button type="submit" hidden>Check</button><p role="status"></p>'
    if question.kind == "choice":
        letters = "".join(f'<label><input type="radio" name="{name}" value="{letter}" hidden> {letter}) '
                          f'{as_html(text)}</label>' for letter, text in question.choices.items())
        return letters + check
    what = (
        "Your answer" if question.kind == "number" else "Your answer, numbers with commas between them"
    )
    return (f'<label hidden>{what}: <input type="text" inputmode="text" '
            f'autocomplete="off"></label>{check}')


def form(name: str) -> str:
    """A question as an HTML form. Without scripts it is the question with folded hint and solution."""
    question = QUESTIONS[name]
    data = ""
    if question.kind != "function":
        wanted = 0 if question.kind == "choice" else np.size(question.answer)
        otherwise = as_html(f"Not yet.\n{question.hint}")
        known = {"cases": cases(name), "otherwise": otherwise, "wanted": wanted}
        data = f' data-cases="{html.escape(json.dumps(known, ensure_ascii=False))}"'
    answer = right_answer(name)
    is_code = question.kind == "function"
    answer = f"<pre>{html.escape(answer)}</pre>" if is_code else f"<p>{as_html(answer)}</p>"
    return (f'<form class="question" data-name="{name}"{data}>'
            f"<fieldset><legend>{as_html(question.text)}</legend>{entry(name, question)}</fieldset>"
            f"<details><summary>Hint</summary><p>{as_html(question.hint)}</p></details>"
            f"<details><summary>Solution</summary>{answer}<p>{as_html(question.why)}</p></details></form>")


def asked(source: str) -> str | None:
    """The question that a cell asks and leaves open, as `check("00.leak", ...)` or with a function that
    isn't written yet."""
    open_ = re.search(r'^check\("([^"]+)", \.\.\.\)', source, flags=re.MULTILINE)
    unwritten = re.search(r'^ask\("([^"]+)"\)\n+def \w+\(.*\): \.\.\.\n+check\("\1", \w+\)', source,
                          flags=re.MULTILINE)
    found = open_ or unwritten
    return found[1] if found and found[1] in QUESTIONS else None


def progress_lines() -> str:
    """How many questions each lesson has; the page's script adds how many were answered."""
    names = {lesson: [name for name in QUESTIONS if name.startswith(lesson)] for lesson in progress()}
    lines = (f"<li>Lesson {int(lesson)}: <span data-questions='{json.dumps(some)}'>{len(some)} "
             "questions</span></li>" for lesson, some in names.items())
    return f"<ul>{''.join(lines)}</ul>"


def with_forms(notebook):
    """The same notebook with a form in place of what each open question prints."""
    shown = {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and (name := asked(cell.source)):
            shown[number] = form(name)
        elif cell.cell_type == "code" and re.search(r"^show_progress\(\)", cell.source,
                                                    flags=re.MULTILINE):
            shown[number] = progress_lines()
    for number, text in shown.items():
        text = (STYLE if number == min(shown) else "") + text + (SCRIPT if number == max(shown) else "")
        data = {"text/html": text, "text/plain": "a question"}
        notebook.cells[number].outputs = [nbformat.v4.new_output("display_data", data=data)]
    return notebook
