"""Sphinx's settings for the site. `tools/website.py` makes the pages' sources and calls Sphinx with this file."""

import inspect
import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package whose pages are made is the one beside this file
os.environ.setdefault("MPLBACKEND", "agg")

config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
REPOSITORY = settings["git_url"].rstrip("/")

project = settings["lib_name"]
author = settings["author"]
version = release = settings["version"]
copyright = f"{author}, {settings['license']}"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
nb_execution_mode = "off"  # pages show the outputs that are stored in the notebooks
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # cells with %magics

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
templates_path = ["_templates"]
pygments_style = "default"
pygments_dark_style = "monokai"


# --- parameters: docments, the comments behind them, become the parameter list that Sphinx knows

def in_code_font(text: str) -> str:
    """Markdown's `code` as reStructuredText's ``code``, which may not touch a letter, as in `Learner`s."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", lambda found: f"``{found[1]}``" + ("\\ " if found[2] else ""), text)


def docments_of(thing) -> list[str]:
    """The comments behind the parameters of a function, or of a class's `__init__`, as Sphinx's field list."""
    from fastcore.docments import docments

    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return []
    try:
        found = docments(thing, full=True)
    except Exception:  # no source, such as a NamedTuple's generated __new__
        return []
    lines = []
    for name, about in found.items():
        comment = " ".join((about.get("docment") or "").split())
        if name == "return":
            lines += [f":returns: {in_code_font(comment)}"] if comment else []
        elif name != "self" and comment:
            lines.append(f":param {name}: {in_code_font(comment)}")
    return lines


def add_docments(app, what, name, thing, options, lines) -> None:
    text = in_code_font("\n".join(lines))  # all at once: code may go on in the next line
    lines[:] = re.sub(r"\n(?=Raises |Source: )", "\n\n", text).split("\n")
    if what in ("function", "class", "method") and (more := docments_of(thing)):
        lines += ["", *more, ""]


def not_for_readers(app, what, name, thing, skip, options) -> bool | None:
    """Leave out fastai's transform methods: `encodes` and `decodes` are called by the pipeline alone."""
    return True if type(thing).__module__.startswith("plum") else None


# --- names: where the text of a page says `mixup`, it leads to what the reference says of it

def public_names() -> dict[str, str]:
    """Each public name of the package's modules with its full name: that of the face where a lesson hands a name on, and
    none where two modules call different things by it."""
    import ast

    found = {}
    for path in sorted((ROOT / "lessonkit").rglob("[a-z]*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                for name in ast.literal_eval(node.value):
                    found.setdefault(name, []).append(f"{module}.{name}")
    nearest = {name: min(full, key=lambda place: place.count(".")) for name, full in found.items()}
    return {name: full for name, full in nearest.items() if [p.count(".") for p in found[name]].count(full.count(".")) == 1}


NAMES = public_names()


class LinkNames(SphinxTransform):
    """Make a link of each `name` in the text that is a public name of the package."""

    default_priority = 400

    def apply(self, **_) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            found = re.match(r"(\w+)(\(.*\))?$", literal.astext())
            linked = any(isinstance(parent, nodes.reference | nodes.title | addnodes.pending_xref) for parent in ancestors(literal))
            if found and found[1] in NAMES and not linked:
                link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=NAMES[found[1]], refexplicit=True, refwarn=False)
                link["refdoc"] = self.env.docname
                literal.replace_self(link)
                link += literal


def ancestors(node):
    while node := node.parent:
        yield node


# --- buttons above a page: its file in the repository, and Colab

def add_links(app, page, template, context, doctree) -> None:
    notebook = (ROOT / "nbs" / f"{page}.ipynb").exists()
    context["colab"] = context["notebook"] = ""
    if notebook and REPOSITORY.startswith("https://github.com/"):
        place = REPOSITORY.removeprefix("https://github.com/")
        context["colab"] = f"https://colab.research.google.com/github/{place}/blob/main/nbs/{page}.ipynb"
    if notebook:
        context["notebook"] = f"{REPOSITORY}/blob/main/nbs/{page}.ipynb"


def setup(app) -> None:
    app.connect("autodoc-process-docstring", add_docments)
    app.connect("autodoc-skip-member", not_for_readers)
    app.connect("html-page-context", add_links)
    app.add_transform(LinkNames)
