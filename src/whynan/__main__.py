"""`python -m whynan` is the command `whynan`."""

import sys

from whynan.cli import main

if __name__ == "__main__":
    sys.exit(main())
