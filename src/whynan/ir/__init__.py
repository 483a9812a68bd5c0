"""The graph that every other room reads: formats, values, nodes, source places. Knows no framework."""
