"""Watching under Hugging Face: a callback for `Trainer(callbacks=[whynan.huggingface.Watch()])`.

With Accelerate alone no callback is needed: `whynan.watch(model, optimizer=optimizer)` takes what `accelerator.prepare` returned.
"""

from typing import Any

from transformers import TrainerCallback

from whynan.watching.doors import options_of, watched
from whynan.watching.torch.watcher import TorchWatch


class Watch(TrainerCallback):
    """Watches the model's loss and gradients. `options` are those of `whynan.watch`: policy, patience, folder, ...

    A bad step raises NonFiniteError out of `trainer.train` before the update, or is dropped, or ends the training, as the policy says.
    Raises WhynanError for an option that does not exist.
    """

    def __init__(self, **options: Any) -> None:
        options_of(options)  # what is wrong is said here rather than when training begins
        self.options = options
        self.watch: TorchWatch | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin: model and optimizer exist by now."""
        self.watch = watched(given["model"], None, given["optimizer"], self.options)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Pass on the policy "stop"."""
        if self.watch is not None and self.watch.stopped:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End in good order."""
        if self.watch is not None:
            self.watch.close()
