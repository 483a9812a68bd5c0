"""All benchmarks of watching, each in a process of its own: what each tool costs while a run is healthy, and what it finds when it is not.

    python -m benchmarks.watch.run [torch] [tensorflow] [jax] [keras] [--rounds N]

A framework that is not installed is left out.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
# per name: what must be installed, and the modules to run, with further variables of the environment; a module that times takes --rounds
PARTS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, dict[str, str]], ...]]] = {
    "torch": (("torch",), (("cost", {}), ("locate", {}))),
    "tensorflow": (("tensorflow", "keras"), (("tensorflow_cost", {}), ("tensorflow_locate", {}))),
    "jax": (("jax", "optax"), (("jax_cost", {}), ("jax_locate", {}))),
    "keras": (("keras",), tuple(("keras_cost", {"KERAS_BACKEND": backend}) for backend in ("tensorflow", "torch", "jax"))),
}


def ran(module: str, variables: dict[str, str], rounds: int) -> int:
    """Run a module and hand through what it prints; its exit code."""
    options = ["--rounds", str(rounds)] if module.endswith("cost") else []
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **QUIET, **variables, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", f"benchmarks.watch.{module}", *options]
    done = subprocess.run(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{module} failed:\n{done.stderr[-3000:]}", flush=True)
    return done.returncode


def main() -> None:
    """Run the parts that are asked for, or all; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of: {' '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    start, failed = time.monotonic(), False
    for name in given.parts or PARTS:
        packages, modules = PARTS[name]
        missing = [p for p in packages if find_spec(p) is None]
        if missing:
            print(f"\n{name}: {missing[0]} is not installed: left out", flush=True)
            continue
        for module, variables in modules:
            backend = variables.get("KERAS_BACKEND", name)
            if find_spec(backend) is None:
                print(f"\nKeras on {backend}: {backend} is not installed: left out", flush=True)
            else:
                failed |= ran(module, variables, given.rounds) != 0
    print(f"\n{time.monotonic() - start:.0f} seconds; load of the machine now: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    sys.exit(failed)


if __name__ == "__main__":
    main()
