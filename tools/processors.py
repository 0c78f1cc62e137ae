"""Run the tests and the short notebooks that compute as on other processors, one combination after the
other.

Libraries choose by what a processor offers how they add up, and each way rounds differently: these
variables make a new one (x86) behave as older ones. Threads and how they wait differ as well. `make
test-processors` runs this; options go to pytest.
"""

import os
import platform
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = {  # PyTorch, its convolutions, its matrix products, NumPy's matrix products
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41",
                "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
               "MKL_ENABLE_INSTRUCTIONS": "AVX512", "OPENBLAS_CORETYPE": "SkylakeX"},
}
COMBINATIONS = [  # kind of processor, threads, what threads do while they wait
    ("default", 1, "PASSIVE"), ("default", 2, "ACTIVE"), ("avx2", 1, "ACTIVE"), ("avx2", 2, "PASSIVE"),
    ("avx512", 1, "PASSIVE"), ("avx512", 2, "PASSIVE"),
]  # fmt: skip
# Notebooks that compare what they compute with something, and take seconds; they run once for each kind
# of processor.
NOTEBOOKS = r"^(batch_transforms|calibration|models|speedups|photo_cache)\.ipynb$"


def offered() -> list[str]:
    """The kinds that this processor can be, in order; on another one than x86 only the first variable
    says anything."""
    say = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    plain = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    best = subprocess.run([sys.executable, "-W", "ignore", "-c", say], env=plain, capture_output=True,
                          text=True, check=True).stdout
    kinds = list(KINDS)
    return kinds[: kinds.index(best.strip().lower()) + 1] if best.strip().lower() in kinds else kinds[:1]


def commands(threads: int, first: bool, options: list[str]) -> list[list[str]]:
    """The tests, two side by side where each has one thread; the notebooks where a kind is tried
    first."""
    side_by_side = ["-n", "2", "--dist", "loadfile"] if threads == 1 else []
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "processor", "-p", "no:cacheprovider",
             *side_by_side, *options]
    nbdev_test = str(Path(sysconfig.get_path("scripts")) / "nbdev-test")
    return (
        [tests] + [[nbdev_test, "nbs", "--file-re", NOTEBOOKS, "--n-workers", "2", "--do-print"]] * first
    )


def tried(kind: str, threads: int, waiting: str, first: bool,
          options: list[str]) -> tuple[str, list[str]]:
    """What came out, in a few words, and what failed, line by line."""
    env = os.environ | KINDS[kind] | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting,
                                      "PYTHONUTF8": "1"}
    said, failed = [], []
    for command in commands(threads, first, options):
        run = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, encoding="utf-8")
        if "pytest" in command:
            counted = [int(count) for count in re.findall(r"(\d+) passed", run.stdout)]
            said.append(f"{sum(counted)} tests pass")
        else:
            counted = re.findall(r"- Completed .+?\.ipynb", run.stdout)
            said.append(f"{len(counted)} notebooks run")
        if run.returncode or not counted:  # nothing that was run is no success
            failed += re.findall(r"^(?:FAILED|ERROR) .*", run.stdout,
                                 flags=re.MULTILINE) or run.stdout.splitlines()[-40:]
    return "; ".join(said), failed


def main() -> int:
    own, faults = offered(), 0
    print(f"{platform.machine()}, which can be {', '.join(own)}", flush=True)
    for number, (kind, threads, waiting) in enumerate(COMBINATIONS):
        first = kind not in [other for other, _, _ in COMBINATIONS[:number]]
        print(f"{kind:<8} {threads} thread{'s' * (threads > 1):<2} {waiting:<8} ", end="", flush=True)
        if kind not in own:
            print("this processor can't", flush=True)
            continue
        start = time.perf_counter()
        said, failed = tried(kind, threads, waiting, first, sys.argv[1:])
        print(f"{said}, {time.perf_counter() - start:.0f} s", *failed, sep="\n    ", flush=True)
        faults += bool(failed)
    print(f"{faults} combinations FAILED." if faults else "All that could be tried pass.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
