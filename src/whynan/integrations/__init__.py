"""Callbacks and transformations for the libraries that people train with, each behind a door of its own: `whynan.keras`, ..."""
