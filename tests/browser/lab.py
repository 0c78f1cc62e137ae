"""JupyterLab on a copy of the course, and a lesson in it as a reader has it: what the tests in this
folder drive."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

SCREENSHOTS = ROOT / "_browser"
WIDTH, HEIGHT = 1280, 800  # of the window, in pixels: a small laptop
RUN_SECONDS = 1200  # for all cells of a lesson
# No news, no questions, and cells stay in the page when they are out of view.
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False,
                                                "doNotDisturbMode": True},
            "notebook-extension/tracker": {"windowingMode": "none"}}


def copy_of_course(folder: Path) -> Path:
    """Copy the notebooks, and what they link to, with no output: what is in them later comes from the
    run. Returns the root."""
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".last_checked")
    shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=left_out)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=left_out)
    for path in (*ROOT.glob("*.md"), ROOT / "settings.ini"):
        shutil.copy(path, folder)
    for path in notebooks.notebooks(folder / "nbs"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return folder


def lab_environment(folder: Path) -> dict[str, str]:
    """Variables with which JupyterLab reads and writes nothing of the user's; the lessons show the
    bundled pictures."""
    variables = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data",
                 "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings",
                 "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    variables["LESSONKIT_PROGRESS"] = "progress.json"
    # ROOT first: the package that is tested is the one beside these tests.
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = notebooks.environment(PYTHONPATH=python_path,
                                **{name: str(folder / name_in) for name, name_in in variables.items()})
    env.pop("LESSONKIT_IMAGES", None)
    return env


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyter_lab(folder: Path):
    """JupyterLab on a copy of the course in an empty folder; gives the address of a page of the lab (put
    a path behind it) and the token. It is shut down, with its kernels, whatever happens."""
    course, state = copy_of_course(folder / "course"), folder / "state"
    port, token = free_port(), secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    options = {
        "ip": "127.0.0.1", "port": port, "ServerApp.port_retries": 0, "ServerApp.root_dir": course,
        "IdentityProvider.token": token, "LabApp.extension_manager": "readonly",
        # Should nobody be left to shut it down, it goes by itself.
        "MappingKernelManager.cull_idle_timeout": 900, "ServerApp.shutdown_no_activity_timeout": 900,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
               "--expose-app-in-browser", *(f"--{name}={value}" for name, value in options.items())]
    log = folder / "jupyterlab.log"
    with log.open("w", encoding="utf-8") as file:
        server = subprocess.Popen(command, cwd=course, env=lab_environment(state), stdout=file,
                                  stderr=subprocess.STDOUT)
    try:
        wait_until_up(server, f"{address}/api/status", token, log)
        yield f"{address}/lab", token
    finally:
        stop(server, f"{address}/api/shutdown", token)


def wait_until_up(server: subprocess.Popen, url: str, token: str, log: Path,
                  seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with suppress(OSError):
            request(url, token)
            return
        time.sleep(0.3)
    raise RuntimeError("JupyterLab did not start. "
                       f"Its log ends with:\n{log.read_text(encoding='utf-8')[-3000:]}")


def request(url: str, token: str, method: str = "GET") -> bytes:
    call = urllib.request.Request(url, method=method, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(call, timeout=10) as answer:
        return answer.read()


def stop(server: subprocess.Popen, url: str, token: str) -> None:
    """Ask the server to end, which ends its kernels; then insist."""
    with suppress(OSError):
        request(url, token, "POST")
    for insist in (lambda: None, server.terminate, server.kill):
        insist()
        with suppress(subprocess.TimeoutExpired):
            server.wait(20)
            return


# What runs in the page. Clicking on the menu is not reliable: JupyterLab says "idle" before a kernel is
# connected, and a run that is asked for then is lost.
OPEN = """
async path => {
  const app = window.jupyterapp;
  await app.restored;
  const widget = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  await widget.context.ready;
  if (!widget.context.model.defaultKernelName) 
    throw new Error(`${path} names no kernel, so JupyterLab asks the reader which one`);
  await widget.sessionContext.ready;
  await widget.revealed;
  app.shell.activateById(widget.id);
  await widget.sessionContext.session.kernel.info;
  window.lesson = widget;
}"""
RUN_ALL = """
() => {
  if (window.jupyterapp.shell.currentWidget !== window.lesson) 
    throw new Error('another tab is in front of the lesson');
  window.ran = null;
  window.jupyterapp.commands.execute('notebook:run-all-cells').then(
    finished => { window.ran = {finished: Boolean(finished)}; });
}"""
IDLE = "() => window.lesson.sessionContext.session.kernel.status === 'idle'"
CELLS = """
() => Array.from(window.lesson.content.model.cells).map(cell => ({
  type: cell.type, source: cell.sharedModel.getSource(),
  count: cell.type === 'code' ? cell.executionCount : null,
  outputs: cell.type === 'code' ? cell.outputs.toJSON() : [],
}))"""
# Elements that one would have to scroll sideways, and those that stick out of their cell, cell by cell.
TOO_WIDE = """
() => window.lesson.content.widgets.map((cell, number) => {
  const box = cell.node.getBoundingClientRect();
  const wide = [];
  for (const element of cell.node.querySelectorAll('*')) {
    const scrolls = ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
    const more = scrolls ? element.scrollWidth - element.clientWidth
      : ['IMG', 'TABLE', 'SVG'].includes(element.tagName.toUpperCase())
        ? element.getBoundingClientRect().right - box.right : 0;
    if (element.clientWidth && more > 2)
      wide.push({pixels: Math.round(more), where: element.closest('.jp-OutputArea-output') ? 'output'
        : element.closest('.jp-InputArea') && cell.model.type === 'code' ? 'code' : 'text'});
  }
  return {number, wide};
}).filter(cell => cell.wide.length)"""
PICTURES = """
number => Array.from(window.lesson.content.widgets[number].node.querySelectorAll('.jp-OutputArea img'))
  .map(image => image.complete && image.naturalWidth > 0)"""
EDIT = """
async ([number, text]) => {
  const {content} = window.lesson;
  content.activeCellIndex = number;
  await content.scrollToItem(number);
  content.mode = 'edit';
  content.activeCell.editor.focus();
}"""


class Lesson:
    """A notebook that is open in JupyterLab, in a page of a browser."""

    def __init__(self, page, path: Path):
        self.page, self.path, self.name = page, path, path.stem

    def open(self, lab: str, token: str) -> None:
        # A workspace of its own: in a shared one, JupyterLab opens the lessons of before again, each
        # with a kernel.
        self.page.goto(f"{lab}/workspaces/{self.name}?token={token}")
        self.page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        self.page.evaluate(OPEN, f"nbs/{self.path.name}")

    def run(self) -> bool:
        """Run all cells as the menu does and wait for the end; False when a cell failed."""
        self.page.evaluate(RUN_ALL)
        ran = self.page.wait_for_function("() => window.ran", timeout=RUN_SECONDS * 1000).json_value()
        self.page.wait_for_function(IDLE)
        return ran["finished"]

    def shut(self) -> None:
        """Shut the kernel down, so that the next lesson has the machine for itself."""
        with suppress(Exception):  # a page that has crashed: the server's end ends the kernel
            self.page.evaluate("() => window.lesson.sessionContext.shutdown()")

    def cells(self) -> list[dict]:
        return self.page.evaluate(CELLS)

    def label(self, number: int) -> str:
        """How a message names a cell: by its number and how it begins."""
        lines = [line for line in self.cells()[number]["source"].splitlines() if line
                 and not line.startswith("#|")]
        return f"cell {number}: {lines[0][:70] if lines else '(empty)'}"

    def shown(self, number: int) -> list[bool]:
        """For each picture under a cell, whether the browser could draw it."""
        return self.page.evaluate(PICTURES, number)

    def too_wide(self) -> list[tuple[int, str, int]]:
        """Number of the cell, what in it ("code", "output" or "text") has to be scrolled sideways, and
        by how many pixels."""
        return [(cell["number"], wide["where"], wide["pixels"])
                for cell in self.page.evaluate(TOO_WIDE) for wide in cell["wide"]]

    def type_and_run(self, number: int, text: str) -> str:
        """Replace what is in a cell with the keyboard, press Shift and Enter, and return what the cell
        prints."""
        before = self.cells()[number]["count"]
        self.page.evaluate(EDIT, [number, text])
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function("([number, before]) => { const c = "
                                    "window.lesson.content.model.cells.get(number).executionCount; "
                                    "return c && c !== before }", arg=[number, before])
        self.page.wait_for_function(IDLE)
        return "".join(output.get("text", "") for output in self.cells()[number]["outputs"])

    def take_pictures(self) -> int:
        """Photograph the lesson from top to bottom into `_browser/`, a window after the other; return
        how many."""
        SCREENSHOTS.mkdir(exist_ok=True)
        for old in SCREENSHOTS.glob(f"{self.name}-*.png"):
            old.unlink()
        self.page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})
        self.page.wait_for_timeout(500)  # until the page has that size
        scroller = "window.lesson.content.node.querySelector('.jp-WindowedPanel-outer')"
        total, step = self.page.evaluate(f"() => [{scroller}.scrollHeight, {scroller}.clientHeight]")
        places = range(0, total, step - 40)
        for count, place in enumerate(places):
            self.page.evaluate(f"place => {scroller}.scrollTo(0, place)", place)
            self.page.wait_for_timeout(150)
            self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{count:02}.png")
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        return len(places)


def interrupt_as_usual() -> None:
    """End the tests, and so the server, also when a runner is told to stop with SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
