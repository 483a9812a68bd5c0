"""The command line: arguments in, a report and an exit code out.

0: no error-level finding · 1: at least one (with --strict, an undecided verdict too) · 2: usage, or the target could not be
loaded or run: one line on stderr · 130: interrupted.
"""

from whynan.cli.entry import main
from whynan.cli.output import exit_code

__all__ = ["exit_code", "main"]
