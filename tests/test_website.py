"""tools/website.py: links that fit where a page lies, and a check of links that finds what it is for."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import reference  # noqa: E402
import website  # noqa: E402

HERE = website.repository()


@pytest.mark.parametrize("link, file, page, expected", [
    ("05_mixup.ipynb", "nbs/00_images.ipynb", "00_images.ipynb", "05_mixup.ipynb"),
    ("05_mixup.ipynb#card", "nbs/00_images.ipynb", "00_images.ipynb", "05_mixup.ipynb#card"),
    ("foundation/plots.ipynb", "nbs/00_images.ipynb", "00_images.ipynb", "foundation/plots.ipynb"),
    ("../00_images.ipynb", "nbs/foundation/plots.ipynb", "foundation/plots.ipynb", "../00_images.ipynb"),
    ("nbs/00_images.ipynb", "README.md", "readme.md", "00_images.ipynb"),
    ("../README.md", "nbs/index.ipynb", "index.ipynb", "readme.md"),
    ("../../README.md#lessons", "nbs/foundation/files.ipynb", "foundation/files.ipynb",
     "../readme.md#lessons"),
    ("LICENSE", "README.md", "readme.md", f"{HERE}/blob/main/LICENSE"),
    ("results/make_mixup.py", "nbs/05_mixup.ipynb", "05_mixup.ipynb",
     f"{HERE}/blob/main/nbs/results/make_mixup.py"),
    ("../../actions", "README.md", "readme.md", f"{HERE}/actions"),
    ("https://example.org/a.ipynb", "README.md", "readme.md", "https://example.org/a.ipynb"),
    ("#card", "nbs/05_mixup.ipynb", "05_mixup.ipynb", "#card"),
])
def test_a_link_leads_to_the_same_thing_in_the_site(link, file, page, expected):
    assert website.new_link(link, file, page) == expected
    assert website.with_new_links(f"See [it]({link}).", file, page) == f"See [it]({expected})."


def test_code_that_looks_like_a_link_stays():
    assert website.with_new_links("`views[2](x)` and [a](b c)", "README.md",
                                  "readme.md") == "`views[2](x)` and [a](b c)"


@pytest.mark.parametrize("path", website.notebooks.lessons(), ids=lambda path: path.stem)
def test_a_lesson_keeps_its_pictures_and_loses_what_is_for_tools(path):
    page = website.source_of_notebook(path)
    pictures = sum("image/png" in output.get("data", {})
                   for cell in page.cells for output in cell.get("outputs", []))
    assert pictures
    assert not [cell.source for cell in page.cells if cell.cell_type == "code" and re.search(
        r"^#\|", cell.source, re.MULTILINE
    )]


def test_every_module_has_its_notebook():
    assert {website.source_notebook(module).suffix for module in reference.module_files()} == {".ipynb"}


def test_what_is_wrong_with_a_site_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html">b</a> <a href="b.html#there">c</a> <a '
                                     'href="https://example.org">w</a>' '<h1 id="top">A</h1><a '
                                     'href="#top">t</a><img src="data:image/png;base64,AAAA">',
                                     encoding="utf-8")
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2>', encoding="utf-8")
    assert website.faults(tmp_path) == []

    (tmp_path / "b.html").write_text('<a href="gone.html">x</a><a href="a.html#gone">x</a><a '
                                     'href="#gone">x</a><a href="sub">x</a>'
                                     '<script src="https://cdn.example.org/x.js"></script><img '
                                     'src="//example.org/x.png">', encoding="utf-8")
    (tmp_path / "sub").mkdir()
    found = website.faults(tmp_path)
    assert [fault.split(": ", 1)[0] for fault in found].count("a.html") == 1  # b.html#there is gone
    for what in ("gone.html: no such file", "a.html#gone: no such place", "#gone: no such place",
                 "sub: no such file", "asks for https://cdn.example.org/x.js",
                 "asks for //example.org/x.png"):
        assert any(what in fault for fault in found), what


def test_links_to_the_repository_must_be_files_in_it(tmp_path):
    place = HERE.removeprefix("https://github.com/")
    (tmp_path / "a.html").write_text(
        f'<a href="{HERE}/blob/main/LICENSE">x</a><a href="{HERE}/blob/main/nbs/gone.py">x</a>'
        f'<a href="https://colab.research.google.com/github/{place}/blob/main/nbs/00_images.ipynb">x</a>'
        f'<a href="https://colab.research.google.com/github/{place}/blob/main/00_images.ipynb">x</a>',
        encoding="utf-8")
    assert website.links_to_own_files(tmp_path) == ["a.html: 00_images.ipynb is not in the repository",
                                                    "a.html: nbs/gone.py is not in the repository"]


def test_each_public_name_is_documented_on_one_page_with_what_it_is_for():
    homes = reference.homes()
    assert ((homes["ImageSet"], homes["mixup"], homes["TECHNIQUES"])
            == ("images", "mixup", "study.techniques"))
    pages = {reference.module_name(path): reference.module_page(path, "")
             for path in reference.module_files()}
    for path in reference.module_files():
        name = reference.module_name(path)
        excluded = re.search(r":exclude-members: (.*)", pages[name])[1].split(", ")
        assert {homes[public] for public in reference.exported(reference.tree(path))
                if public not in excluded} <= {name}
    table = reference.names_page()
    for name in ("run_ablation", "mixup", "flip", "tta", "select_subset", "channel_stats"):
        assert re.search(rf"^\| `{name}` \| \w.+ \|", table, flags=re.MULTILINE), name


def test_what_a_name_is_tested_against_is_told_by_marks_of_public_names():
    marks = reference.marks("against")
    assert {mark["theirs"].split()[0] for mark in marks} >= {
        "torchvision", "timm", "fastai", "PyTorch", "ttach", "apricot", "Composer", "Keras"
    }
    table = reference.names_page()
    for mark in marks:
        assert re.search(rf"^\| `{mark['ours']}` \|.*\[{re.escape(mark['theirs'])}\]", table,
                         flags=re.MULTILINE), mark


@pytest.mark.parametrize("file", website.TEXTS)
def test_pictures_and_links_of_a_text_are_in_the_site_or_the_repository(file):
    text, page = (ROOT / file).read_text(encoding="utf-8"), website.TEXTS[file]
    shown = website.with_two_pictures(website.with_new_links(text, file, page))
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)|^```\{image\} (\S+)", website.without_badges(shown),
                          flags=re.MULTILINE)
    for picture in map("".join, pictures):
        assert picture in {website.place_in_site(path.relative_to(ROOT).as_posix())
                           for path in website.pictures()}
    assert "<img" not in shown and "<picture" not in shown
    for link in re.findall(rf"\]\({re.escape(HERE)}/blob/main/([^)#\s]+)", shown):
        assert (ROOT / link).exists(), link


def test_a_table_of_sentences_says_in_each_cell_which_column_it_is():
    row = '<tr><td><p>a</p></td>\n<td class="right"><p>{}</p></td></tr>'
    for opening in ('<table class="docutils">', "<table>"):  # the site's, and that of a page
        table = (opening + '<thead><tr><td></td><th class="head"><p>Why</p></th></tr></thead><tbody>'
                 + row + "</tbody></table>")
        assert website.notebooks.with_labels(table.format("7")) == table.format("7")
        told = website.notebooks.with_labels(table.format("A sentence with a good many words, "
                                                          "as it seems."))
        assert re.findall(r'data-label="(.*?)"', told) == ["", "Why"] and 'class="sentences ' in told


def test_parameters_of_a_long_signature_are_no_list_of_definitions(tmp_path):
    (tmp_path / "a.html").write_text('<dl class="py"><dt>f(<dl>\n<dd><em '
                                     'class="sig-param"><span>x</span></em>,</dd>\n<dd><em '
                                     'class="sig-param">*</em>,</dd>\n</dl>)</dt>' "<dd>about</dd></dl>",
                                     encoding="utf-8")
    website.repair(tmp_path)
    assert re.findall(r"</?d[ltd]\b", (tmp_path / "a.html").read_text(encoding="utf-8")) == [
        "<dl", "<dt", "</dt", "<dd", "</dd", "</dl"
    ]


def test_sphinx_reads_parameters_that_a_function_takes_over_from_another():
    """Their defaults and comments: a dataclass's `__init__` has no source."""
    pytest.importorskip("sphinx", reason='needs Sphinx: pip install -c constraints.txt -e ".[site]"')
    import inspect

    from lessonkit.ablation import choose_best

    spec = importlib.util.spec_from_file_location("site_conf", website.SETTINGS / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    before = inspect.signature(choose_best)
    conf.show_defaults_as_written(None, choose_best, False)
    shown = {name: repr(one.default) for name, one in inspect.signature(choose_best).parameters.items()}
    choose_best.__signature__ = before
    assert (shown["fraction"], shown["epochs"], shown["cost"]) == ("0.2", "5", "'pixels'")
    comments = "\n".join(conf.docments_of(choose_best))
    assert (":param fraction: of the training photos" in comments
            and ":param epochs: length of" in comments)
    assert conf.as_sphinx("|a| of `Learner`s, `b|c`") == r"\|a\| of ``Learner``\ s, ``b|c``"
