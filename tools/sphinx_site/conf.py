"""Sphinx's settings for the site. `tools/website.py` makes the pages' sources and calls Sphinx with this
file."""

import ast
import inspect
import os
import re
import sys
import textwrap
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[2]
# the package whose pages are made is the one beside this file
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
os.environ.setdefault("MPLBACKEND", "agg")

from reference import homes  # noqa: E402

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

def as_sphinx(text: str) -> str:
    """Markdown's `code` as reStructuredText's ``code``, which may not touch a letter, as in `Learner`s.
    Elsewhere a bar is a bar, as in |a|."""
    parts = re.split(r"((?<!`)`[^`]+`(?!`))", text)
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    parts[1::2] = [f"`{code}`" + r"\ " * after[:1].isalnum()
                   for code, after in zip(parts[1::2], parts[2::2])]
    return "".join(parts)


def docments_of(thing) -> list[str]:
    """The comments behind the parameters of a function, or of a class's `__init__`, as Sphinx's field
    list."""
    from fastcore.docments import docments

    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return []
    delegating = thing
    # a dataclass's __init__ has no source, but fastcore reads the class
    while to := getattr(delegating, "__delwrap__", None):
        if to.__name__ == "__init__":
            to = delegating.__delwrap__ = getattr(sys.modules[to.__module__],
                                                  to.__qualname__.partition(".")[0])
        delegating = to
    try:
        found = docments(thing, full=True)
    except Exception:  # no source, such as a NamedTuple's generated __new__
        return []
    lines = []
    for name, about in found.items():
        comment = " ".join((about.get("docment") or "").split())
        if name == "return":
            lines += [f":returns: {as_sphinx(comment)}"] if comment else []
        elif name != "self" and comment:
            lines.append(f":param {name}: {as_sphinx(comment)}")
    return lines


def add_docments(app, what, name, thing, options, lines) -> None:
    text = as_sphinx("\n".join(lines))  # all at once: code may go on in the next line
    lines[:] = re.sub(r"\n(?=Raises |Source: )", "\n\n", text).split("\n")
    if what in ("function", "class", "method") and (more := docments_of(thing)):
        lines += ["", *more, ""]


class Written:
    """A default that shows as its source code."""

    def __init__(self, code: str):
        self.code = code

    def __repr__(self) -> str:
        return self.code


def show_defaults_as_written(app, function, bound) -> None:
    """What `autodoc_preserve_defaults` does, for functions too that take over another one's parameters
    (`delegates`), which it can't read. Parameters from elsewhere show their values."""
    function = getattr(function, "__func__", function)
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].args
        signature = inspect.signature(function)
    except (OSError, TypeError, AttributeError):  # no source, such as a dataclass's generated __init__
        return
    names = [argument.arg for argument in (*source.posonlyargs, *source.args)]
    code = dict(zip(reversed(names), reversed(source.defaults)))
    code |= {argument.arg: default
             for argument, default in zip(source.kwonlyargs, source.kw_defaults) if default}
    shown = [parameter.replace(default=Written(ast.unparse(code[name]))) if name in code else parameter
             for name, parameter in signature.parameters.items()]
    function.__signature__ = signature.replace(parameters=shown)


def not_for_readers(app, what, name, thing, skip, options) -> bool | None:
    """Leave out fastai's transform methods: `encodes` and `decodes` are called by the pipeline alone."""
    return True if type(thing).__module__.startswith("plum") else None


# --- names: where the text of a page says `mixup`, it leads to what the reference says of it

NAMES = {name: f"lessonkit.{module}.{name}" for name, module in homes().items()}


class LinkNames(SphinxTransform):
    """Make a link of each `name` in the text that is a public name of the package."""

    default_priority = 400

    def apply(self, **_) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            found = re.match(r"(\w+)(\(.*\))?$", literal.astext())
            linked = any(isinstance(parent, nodes.reference | nodes.title | addnodes.pending_xref)
                         for parent in ancestors(literal))
            if found and found[1] in NAMES and not linked:
                link = addnodes.pending_xref("", refdomain="py", reftype="obj",
                                             reftarget=NAMES[found[1]], refexplicit=True, refwarn=False)
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
    app.connect("autodoc-before-process-signature", show_defaults_as_written)
    app.connect("autodoc-skip-member", not_for_readers)
    app.connect("html-page-context", add_links)
    app.add_transform(LinkNames)
