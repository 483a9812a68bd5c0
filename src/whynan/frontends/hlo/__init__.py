"""The program that XLA makes of a loss: its optimised HLO text, parsed and lowered to the graph. JAX and TensorFlow share it."""
