"""Banks, multipliers and accumulators, and the walk over their tiles."""
