"""The search for fixes: proposals for each failing expression, written into the source, run, checked again, compared with the original.

A fix is verified if the same check proves the changed source finite and its value is the original's wherever the original is finite.
Several defects are mended one after the other. Limits are counts, so that the same loss gets the same fixes on any machine.
"""

from whynan.fixing.find import fixes
from whynan.fixing.job import Job

__all__ = ["Job", "fixes"]
