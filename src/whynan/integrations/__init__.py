"""Callbacks for training frameworks; each module imports its own framework and is reached as `whynan.keras`, `whynan.lightning`, ..."""
