"""How the machine runs a network: bands of its maps, and the stream that says so."""
