"""Run the benchmarks and print their tables: python benchmarks/run.py [imports] [operations] [boxes] [sizes] [gallery].

Times are processor seconds, so that they mean the same on a busy machine; ratios are taken within one run.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

NAMES = ("imports", "operations", "boxes", "sizes", "gallery")


def main(names: Sequence[str]) -> None:
    """Run the benchmarks of those names, or all."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]!r}: choose from {', '.join(NAMES)}.")
    for name in names or NAMES:
        import_module(name).main()


if __name__ == "__main__":
    main(sys.argv[1:])
