"""The host's side of a machine on a board: which port it is at, and what is said on it."""
