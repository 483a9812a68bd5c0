"""JAX: losses run as one jitted step or op by op, and recorded from the HLO that XLA makes of them on the CPU."""

from whynan.frontends.jax.program import MODES, JaxProgram, load

__all__ = ["MODES", "JaxProgram", "load"]
