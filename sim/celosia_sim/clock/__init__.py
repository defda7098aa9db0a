"""When everything happens that a stream makes the second machine do: its exact cycles."""
