"""The operations whynan knows: a closed set, one module per family. Importing this package registers them all."""

from whynan.ops import activations, arithmetic, cast, compare, exponential, powers, select, special, trigonometric, whole

__all__ = ["activations", "arithmetic", "cast", "compare", "exponential", "powers", "select", "special", "trigonometric", "whole"]
