"""Watching under Lightning: a callback for `Trainer(callbacks=[whynan.lightning.Watch()])`."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from whynan.watching.doors import options_of
from whynan.watching.torch.watcher import TorchWatch

lightning: Any = import_module("lightning.pytorch" if find_spec("lightning") else "pytorch_lightning")  # one code base, two names


class Watch(lightning.Callback):
    """Watches `training_step` and its gradients. `options` are those of `whynan.watch`: policy, patience, folder, ...

    A bad step raises NonFiniteError out of `trainer.fit` before the update, or is dropped, or ends the training, as the policy says.
    Raises WhynanError for an option that does not exist.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options_of(options)
        self.watch: TorchWatch | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin: the optimizers exist by now."""
        self.watch = TorchWatch([pl_module], pl_module.training_step, trainer.optimizers, self.options)
        self.watch.run.during_replay = lambda: _unlogged(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Pass on the policy "stop"."""
        if self.watch is not None and self.watch.stopped:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End in good order."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End after an error, too."""
        self._close()

    def _close(self) -> None:
        if self.watch is not None:
            self.watch.close()


@contextmanager
def _unlogged(module: Any) -> Iterator[None]:
    """Nothing is logged while a step is run again."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    names = ("log", "log_dict")
    for name in names:
        module.__dict__[name] = nothing
    try:
        yield
    finally:
        for name in names:
            module.__dict__.pop(name, None)
