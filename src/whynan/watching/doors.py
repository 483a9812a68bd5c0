"""From what the user wants watched to the framework's watcher."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from whynan._chance import undrawn
from whynan.errors import WhynanError
from whynan.target import framework_of
from whynan.watching.mending import Fixer
from whynan.watching.policy import Options


@undrawn()
def watched(what: Any, loss: Any, optimizer: Any, options: Mapping[str, Any], fixer: Fixer | None = None) -> Any:
    """The watcher for a model or a step; `fixer` finds the fixes of a loss. Raises WhynanError if there is none for it."""
    ready = options_of({n: v for n, v in options.items() if n != "model"})
    torch = sys.modules.get("torch")  # what is to be watched has been made with it
    if torch is not None and all(isinstance(m, torch.nn.Module) for m in several(what)):
        from whynan.watching.torch.watcher import TorchWatch

        optimizers = [getattr(o, "optimizer", o) for o in several(optimizer)]  # Accelerate puts one inside another
        strange = next((o for o in optimizers if not isinstance(o, torch.optim.Optimizer)), None)
        if strange is not None:
            raise WhynanError(f"optimizer is a {type(strange).__name__}.", "Give a torch.optim.Optimizer, or several in a list.")
        if not optimizers:
            raise WhynanError("no optimizer is given.", "Pass optimizer=: bad steps are held back where it would apply them.")
        watch = TorchWatch(several(what), loss, optimizers, ready)
        watch.run.fixer = fixer
        return watch
    if "jax" in sys.modules and callable(what) and framework_of(what) == "jax":
        from whynan.watching.jax.watcher import JaxWatch

        if loss is not None and not isinstance(loss, (int, str)):
            raise WhynanError(f"loss is a {type(loss).__name__}.", "For a JAX step, loss= says which result it is: a position or a key.")
        return JaxWatch(what, ready, loss)
    if "tensorflow" in sys.modules and callable(what) and (hasattr(what, "python_function") or framework_of(what) == "tensorflow"):
        from whynan.watching.overseer import Overseer
        from whynan.watching.tensorflow.step import watch_step

        return watch_step(what, several(options.get("model")), several(optimizer), Overseer(ready))
    raise WhynanError(f"a {type(what).__name__} cannot be watched.", "Give a torch.nn.Module with optimizer=, or see docs/watch.md.")


def several(one_or_more: Any) -> Sequence[Any]:
    """What was given as one, a list or a dictionary, as a sequence."""
    if one_or_more is None:
        return ()
    if isinstance(one_or_more, Mapping):
        return tuple(one_or_more.values())
    return tuple(one_or_more) if isinstance(one_or_more, (list, tuple)) else (one_or_more,)


def options_of(options: Mapping[str, Any]) -> Options:
    """The options by name. Raises WhynanError for a name that is none, and for values that are out of range."""
    known = [f.name for f in fields(Options)]
    strange = next((name for name in options if name not in known), None)
    if strange is not None:
        raise WhynanError(f"whynan.watch has no option {strange!r}.", f"It has {', '.join(known)}.")
    paths = {n: Path(options[n]) for n in ("folder", "snapshots") if options.get(n) is not None}
    return Options(**{**options, **paths})
