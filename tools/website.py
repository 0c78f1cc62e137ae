"""Make the site, the lessons and the reference as web pages, in `_site/`, with nothing but what is
installed: `make site`."""

import posixpath
import re
import shutil
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import differences
import nbformat
import notebooks
import players
import questions
import reference
from notebooks import NBS, ROOT, repository

SITE = ROOT / "_site"
SETTINGS = Path(__file__).resolve().parent / "sphinx_site"
TEXTS = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
         "benchmarks/results.md": "benchmark.md"}
PICTURES = {ROOT / ".github/pictures": "pictures", ROOT / "benchmarks": "pictures/benchmark"}


# --- sources: copies of the notebooks and texts, with links that fit where they lie in the site

def place_in_site(file: str) -> str | None:
    """Where a file of the repository is in the site's sources; None when it isn't there."""
    if file in TEXTS and (ROOT / file).exists():
        return TEXTS[file]
    if ROOT / file in pictures():
        return f"{PICTURES[(ROOT / file).parent]}/{(ROOT / file).name}"
    return file.removeprefix("nbs/") if file.startswith("nbs/") and file.endswith(".ipynb") else None


def pictures() -> list[Path]:
    """The pictures of the texts."""
    return [path for folder in PICTURES for kind in ("png", "svg") for path in folder.glob(f"*.{kind}")]


def new_link(link: str, file: str, page: str) -> str:
    """A link in a file of the repository, for the site's page of that file; what is not in the site
    leads to the repository."""
    target, hash_, anchor = link.partition("#")
    if not target or urlsplit(target).scheme:
        return link
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
    # on the web a text lies in blob/main, so this is the repository's own page, as ../../actions
    if meant.startswith("../../"):
        return f"{repository()}/{meant.removeprefix('../../')}"
    there = place_in_site(meant)
    if there is None:
        return f"{repository()}/blob/main/{meant}{hash_}{anchor}"
    return posixpath.relpath(there, posixpath.dirname(page) or ".") + hash_ + anchor


def with_new_links(text: str, file: str, page: str) -> str:
    """A Markdown text with its links changed; code stays as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    parts[::2] = [re.sub(r"(?<=\]\()[^()\s]+(?=\))", lambda link: new_link(link[0], file, page), part)
                  for part in parts[::2]]
    return "".join(parts)


def source_of_notebook(path: Path):
    """A notebook as the site shows it: players for sliders, forms for questions, no cells or lines that
    are for tools alone."""
    file = path.relative_to(ROOT).as_posix()
    page = place_in_site(file)
    notebook = notebooks.with_alternative_texts(
        notebooks.without_sliders(nbformat.read(path, as_version=4))
    )
    notebook = notebooks.without_hidden_cells(players.with_players(questions.with_forms(notebook)))
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = notebooks.without_colab_link(cell.source)  # the site's pages have a button
            cell.source = with_new_links(cell.source, file, page)
            continue
        if cell.metadata.get("jupyter", {}).get("source_hidden"):  # MyST-NB folds it
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.metadata["mystnb"] = dict.fromkeys(["code_prompt_show", "code_prompt_hide"],
                                                    notebooks.folded_title(cell.source))
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE)
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = with_new_links(data["text/markdown"], file, page)
            # MyST-NB looks for it at the cell
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata.setdefault("mystnb", {})["image"] = {"alt": alt}
    return notebook


def without_badges(text: str) -> str:
    """A text without pictures from elsewhere that are links, such as a badge."""
    return re.sub(r"^\[!\[.*\n\n?", "", text, flags=re.MULTILINE)


def with_two_pictures(text: str) -> str:
    """A text in which a `<picture>` for light and dark pages has become two, of which Furo shows one."""
    pattern = (r'<picture>\s*<source [^>]*srcset="(?P<dark>[^"]+)">\s*<img src="(?P<light>[^"]+)" '
               r'alt="(?P<alt>[^"]+)">\s*</picture>')
    return re.sub(pattern, lambda found: "\n\n".join(f"```{{image}} "
                                                     f"{place_in_site(found[name])}\n:class: "
                                                     f"only-{name}\n:alt: {found['alt']}\n```"
                                                     for name in ("light", "dark")), text)


CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


def write_sources(folder: Path) -> None:
    """Write what Sphinx reads: the notebooks, the texts beside them, and a page for each module."""
    titles = {}
    for path in notebooks.notebooks():
        notebook = source_of_notebook(path)
        titles[path] = notebooks.title(notebook)
        if path == NBS / "index.ipynb":
            lessons = [other.stem for other in notebooks.lessons() if other != path]
            support = [place(other)
                       for other in notebooks.notebooks() if other not in notebooks.lessons()]
            modules = [f"reference/{reference.module_name(module)}"
                       for module in reference.module_files()]
            public = ["names", *(f"reference/{name}" for name in reference.public_modules())]
            texts = [page.removesuffix(".md") for file, page in TEXTS.items()
                     if (ROOT / file).exists()] + ["differences"]
            inner = [page for page in modules if page not in public]
            for caption, pages in (("Lessons", lessons), ("Reference", public), ("The project", texts),
                                   ("What the lessons use", support),
                                   ("Reference of the workings", inner)):
                text = CONTENTS.format(caption=caption, pages="\n".join(pages))
                notebook.cells.append(nbformat.v4.new_markdown_cell(text))
        target = folder / path.relative_to(NBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
    for file, page in TEXTS.items():
        if (ROOT / file).exists():
            text = with_new_links(without_badges((ROOT / file).read_text(encoding="utf-8")), file, page)
            (folder / page).write_text(with_two_pictures(text), encoding="utf-8")
    for picture in pictures():
        target = folder / place_in_site(picture.relative_to(ROOT).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)
    (folder / "differences.md").write_text(differences.page(), encoding="utf-8")
    (folder / "names.md").write_text(reference.names_page(), encoding="utf-8")
    (folder / "reference").mkdir()
    for module in reference.module_files():
        source = source_notebook(module)
        lesson = f"Explained and built in [{titles[source]}](../{source.relative_to(NBS).as_posix()})."
        page = reference.module_page(module, lesson)
        (folder / "reference" / f"{reference.module_name(module)}.md").write_text(page, encoding="utf-8")


def place(notebook: Path) -> str:
    """Where a notebook's page lies: "study/trials"."""
    return notebook.relative_to(NBS).with_suffix("").as_posix()


def source_notebook(module: Path) -> Path:
    """The notebook that exports a module."""
    name = reference.module_name(module).replace(".", "/")
    return next(path for path in notebooks.notebooks() if re.sub(r"^\d\d_", "", place(path)) == name)


# --- what axe-core finds in Furo's pages

REPAIRS = {
    r"<pre>": '<pre tabindex="0">',  # a long line can be scrolled with the keyboard
    r'(<p class="caption" role="heading")>': r'\1 aria-level="2">',
    r'<th class="head"><p></p></th>|<th></th>': "<td></td>",  # the corner of a table is no heading
    r'<div id="search-results">': '<h1>Search</h1>\n<div id="search-results">',
    r'<aside class="(sidebar-drawer[^"]*)">': r'<aside class="\1" aria-label="Pages of the site">',
    r'<aside class="(toc-drawer[^"]*)">': r'<aside class="\1" aria-label="On this page">',
}


def signature_lines(parameters: str) -> str:
    """A long signature's parameters, which Sphinx makes a list of definitions with nothing that is
    defined, as plain lines."""
    return re.sub("(</?)d[ld]>", r"\1span>", parameters).replace("<span>", '<span class="sig-lines">', 1)


def repair(site: Path) -> None:
    """Give the pages what readers without a mouse, without sight or with a small window need."""
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        for pattern, better in REPAIRS.items():
            page = re.sub(pattern, better, page)
        page = re.sub(r'<dl>\s*<dd><em class="sig-param">.*?</dl>',
                      lambda found: signature_lines(found[0]), page, flags=re.DOTALL)
        path.write_text(notebooks.with_labels(page), encoding="utf-8")


# --- links

class Page(HTMLParser):
    """The links and anchors of a page, and what it asks of other servers when it is opened."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.requests = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        for name in ("href", "src"):
            if link := attributes.get(name):
                self.links.append(link)
                if tag != "a" and urlsplit(link).netloc:
                    self.requests.append(link)


def faults(site: Path = SITE) -> list[str]:
    """Links in a site that lead nowhere, and pages that ask other servers for something."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        found += [f"{name} asks for {request}" for request in page.requests]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme == "file":
                    found.append(f"{name}: {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or target.is_dir():
                found.append(f"{name}: {link}: no such file")
            elif (parts.fragment and target in pages
                  and unquote(parts.fragment) not in pages[target].anchors):
                found.append(f"{name}: {link}: no such place in that page")
    return found


def links_to_own_files(site: Path = SITE) -> list[str]:
    """Links to files in the repository, for Colab or to read, that are not in this tree."""
    address = re.escape(repository())
    place = re.escape(repository().removeprefix("https://github.com/"))
    pattern = rf'href="(?:{address}|https://colab\.research\.google\.com/github/{place})/(?:blob|tree)/main/([^"#?]+)'
    found = {(path.name, file) for path in site.rglob("*.html")
             for file in re.findall(pattern, path.read_text(encoding="utf-8"))}
    return [f"{page}: {file} is not in the repository"
            for page, file in sorted(found) if not (ROOT / file).exists()]


def main() -> int:
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        raise SystemExit('The site is made with Sphinx: pip install -c constraints.txt -e '
                         '".[site]"') from None

    shutil.rmtree(SITE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "pages"
        sources.mkdir()
        write_sources(sources)
        built = Path(folder) / "html"
        options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(SETTINGS), "-d",
                   str(Path(folder) / "doctrees")]
        if failed := build_main([*options, str(sources), str(built)]):
            return failed
        shutil.move(built, SITE)
    repair(SITE)
    (SITE / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with _
    shutil.rmtree(SITE / "_sources", ignore_errors=True)
    (SITE / ".buildinfo").unlink(missing_ok=True)
    if wrong := faults() + links_to_own_files():
        print(f"{len(wrong)} links or requests are wrong:", *wrong, sep="\n  ")
        return 1
    print(f"{len(list(SITE.rglob('*.html')))} pages, all links lead somewhere: "
          f"open {SITE / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
