"""`whynan.huggingface.Watch()`: the callback for the Hugging Face Trainer."""

from whynan.integrations.huggingface import Watch

__all__ = ["Watch"]
