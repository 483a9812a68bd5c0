"""Where in the user's source an operation stands."""

import linecache
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Site:
    """A source expression. Lines and columns count from 1 and 0, as in Python's own `ast`; `text` is the exact sub-expression.

    Two sites are equal if they are the same expression, whatever is known of the library's frames below it.
    """

    file: str
    line: int
    end_line: int
    column: int
    end_column: int
    text: str
    function: str
    # the library frame below the user's expression, if any: "torch/nn/functional.py:3412 in kl_div"
    detail: str = field(default="", compare=False)

    def overlaps(self, other: "Site") -> bool:
        """Whether the two expressions have some text in common."""
        starts, ends = (self.line, self.column), (self.end_line, self.end_column)
        return self.file == other.file and starts < (other.end_line, other.end_column) and (other.line, other.column) < ends

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def source_text(file: str, line: int, end_line: int, column: int, end_column: int) -> str:
    """The exact text of a span; columns are UTF-8 byte offsets, as CPython's code positions are. Empty if unreadable."""
    lines = [linecache.getline(file, n).rstrip("\n").encode() for n in range(line, end_line + 1)]
    if not lines or not any(lines):
        return ""
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    return "\n".join(part.decode(errors="replace") for part in lines)
