"""Package metadata from settings.ini, the one place where it is written."""
import re
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import urljoin

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
address, tag = settings["git_url"], f"v{settings['version']}"


def requirements(key: str) -> list[str]:
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


def for_an_index(text: str) -> str:
    """The README with links and pictures that lead from anywhere to this version's files in the
    repository."""
    text = re.sub(r'((?:!\[[^\]]*\]\(|src="|srcset="))(?!https?:)(?!\.\./)',
                  rf"\1{address.replace('github.com', 'raw.githubusercontent.com')}/{tag}/", text)
    page = f"{address}/blob/{tag}/README.md"
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda link: f"]({urljoin(page, link[1])})", text)


names = ("lessons", "pretrained", "cluster", "peers", "dev", "browser", "site", "release")
extras = {name: requirements(f"{name}_requirements") for name in names}
extras["dev"] += extras["lessons"] + extras["pretrained"] + extras["cluster"] + extras["peers"]
commands = ["lessonkit = lessonkit.cli:main"]
# for those who work on the course: the name they know; nbdev 3 installs nbdev-test
if "editable_wheel" in sys.argv:
    commands.append("nbdev_test = nbdev.test:nbdev_test")

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=for_an_index((here / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license_expression=settings["license"],
    url=address,
    project_urls={"Changelog": f"{address}/blob/main/CHANGELOG.md", "Issues": f"{address}/issues"},
    keywords=settings["keywords"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["lessonkit", "lessonkit.*"]),
    package_data={"lessonkit": ["py.typed"], "lessonkit.foundation": ["*.jinja"],
                  "lessonkit.selection": ["*.jinja"],
                  "lessonkit.study": ["*.jinja"]},
    python_requires=f">={settings['min_python']}",
    install_requires=requirements("requirements"),
    extras_require=extras,
    entry_points={
        "console_scripts": commands,
        "nbdev": [f"{settings['lib_name']} = {settings['lib_name']}._modidx:d"],
    },
)
