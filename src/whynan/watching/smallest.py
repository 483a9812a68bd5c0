"""The smallest part of a batch that fails without the rest."""

from collections.abc import Callable, Sequence


def smallest(batch: int, fails: Callable[[Sequence[int]], bool | None], suspects: Sequence[int] = (), tries: int = 64) -> tuple[int, ...]:
    """Samples that fail together while none of the tried smaller parts does; empty if nothing smaller than the batch was found.

    First each suspect alone, then halves and their complements (delta debugging: Zeller and Hildebrandt, "Simplifying and isolating
    failure-inducing input", 2002). `fails` runs the step on the given samples (None: it cannot be run on them alone); at most `tries`
    runs are made.
    """
    left = tries

    def tried(pick: Sequence[int]) -> bool | None:
        nonlocal left
        left -= 1
        return fails(pick) if left >= 0 and pick else None

    for s in list(suspects)[: tries // 4]:
        if tried([s]):
            return (s,)
    kept, pieces = list(range(batch)), 2
    while len(kept) > 1 and left > 0:
        size = -(-len(kept) // pieces)
        chunks = [kept[i : i + size] for i in range(0, len(kept), size)]
        smaller = next((c for c in chunks if tried(c)), None)
        if smaller is not None:
            kept, pieces = smaller, 2
            continue
        rest = next((r for c in chunks if len(chunks) > 2 and tried(r := [i for i in kept if i not in c])), None)
        if rest is not None:
            kept, pieces = rest, max(pieces - 1, 2)
        elif pieces >= len(kept):
            break
        else:
            pieces = min(2 * pieces, len(kept))
    if len(kept) == batch or (not suspects and tried([i for i in range(batch) if i not in kept]) is not False):
        return ()  # with nobody under suspicion and the others not known to be healthy, it is not these samples' doing
    return tuple(kept)
