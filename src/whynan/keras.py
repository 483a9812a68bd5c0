"""`whynan.keras.Watch`: the callback that watches `model.fit` of Keras 3. Importing this module imports Keras."""

from whynan.integrations.keras import Watch

__all__ = ["Watch"]
