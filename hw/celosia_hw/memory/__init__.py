"""Main memory, and its port."""
