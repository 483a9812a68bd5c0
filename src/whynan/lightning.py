"""`whynan.lightning.Watch()`: the callback for Lightning's Trainer."""

from whynan.integrations.lightning import Watch

__all__ = ["Watch"]
