"""The memory images and the report of a schedule."""
