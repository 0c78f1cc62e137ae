"""Package metadata from settings.ini, the one place where it is written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]


def requirements(key: str) -> list[str]:
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


extras = {name: requirements(f"{name}_requirements") for name in ("lessons", "pretrained", "cluster", "dev", "browser", "site")}
extras["dev"] += extras["lessons"] + extras["pretrained"] + extras["cluster"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    url=settings["git_url"],
    keywords=settings["keywords"],
    packages=find_packages(include=["lessonkit", "lessonkit.*"]),
    package_data={"lessonkit": ["py.typed"], "lessonkit.study": ["report.html.jinja"]},
    python_requires=f">={settings['min_python']}",
    install_requires=requirements("requirements"),
    extras_require=extras,
    entry_points={
        "console_scripts": [
            "lessonkit = lessonkit.cli:main",
            "nbdev_test = nbdev.test:nbdev_test",  # the name people know; nbdev 3 itself installs nbdev-test
        ],
        "nbdev": [f"{settings['lib_name']} = {settings['lib_name']}._modidx:d"],
    },
)
