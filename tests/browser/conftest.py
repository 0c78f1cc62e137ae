"""One browser for all tests here: Playwright can be started only once at a time."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def browser():
    """A Chromium: the one that LESSONKIT_CHROMIUM names, one on the PATH, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs Playwright: '
                                     'pip install -c constraints.txt -e ".[dev,browser]"')
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("LESSONKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        try:
            one = driver.chromium.launch(executable_path=found,
                                         args=["--no-sandbox", "--disable-dev-shm-usage"])
        except playwright.Error as error:
            if found and os.path.exists(found):  # it is there and doesn't start: a fault
                raise
            pytest.skip("needs Chromium: install it, or run python -m playwright install chromium, "
                        f"or name one in LESSONKIT_CHROMIUM ({str(error).splitlines()[0]})")
        yield one
        one.close()
