"""Abstract values: what an array of floats can hold. Knows formats, no operations and no framework."""
