"""What every method trains with: the loop, rounds of it, and the journal of a run."""
