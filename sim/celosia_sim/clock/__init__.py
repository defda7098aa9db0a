"""When everything happens that a stream makes the machine do: its exact cycles."""
