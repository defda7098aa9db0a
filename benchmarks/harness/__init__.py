"""What the benchmarks share: results that hold their figures, and the command line around them."""
