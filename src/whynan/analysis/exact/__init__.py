"""What a value would be in exact arithmetic, how far rounding can move it from there, and what real algebra says of it."""
