"""From sums to the next layer's mantissas."""
