"""The host's side: frames, serial line."""
