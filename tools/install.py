"""Install the tested versions into the environment that runs this: `make` calls it. What goes wrong is
told in one line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GB = 1e9
# PyTorch's build for graphics cards, which pip takes on Linux where nobody names another place, and all
# the rest.
NEEDED = 10 if sys.platform == "linux" and "PIP_EXTRA_INDEX_URL" not in os.environ else 3
SMALLER = ("With PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu behind the command, "
           "3 GB are enough.")


def room(free: float) -> str:
    """One line on `free` bytes on the disk."""
    return (f"{free / GB:.1f} GB of the disk are free, about {NEEDED} GB are needed. "
            f"{SMALLER if NEEDED > 3 else ''}".strip())


def reason(log: str, free: float) -> str:
    """Why pip failed, in one line, from what it noted and from the bytes that are free now."""
    if "No space left" in log or free < 0.1 * GB:
        return f"The disk is full. {room(free)}"
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|SSLError|ProxyError"
                 r"|Connection refused", log):
        return ("The network failed: pip reached no package index. Check the connection, "
                "then start the same command again.")
    errors = re.findall(r"ERROR: (.+)", log)
    return f"pip failed: {errors[-1] if errors else 'its last lines above say why.'}"


def main() -> int:
    place = Path(sys.prefix)
    free = shutil.disk_usage(place).free
    if free < NEEDED * GB and not (place / ".installed").exists():
        print(f"This may not fit: {room(free)}", file=sys.stderr, flush=True)
    log = place / "install.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--log", str(log), "-c", "constraints.txt", "-e",
               ".[dev]"]
    if subprocess.run(command, cwd=ROOT).returncode == 0:
        return 0
    noted = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    print(reason(noted, shutil.disk_usage(place).free), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
