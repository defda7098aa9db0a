"""What compiler, gateware and simulators of the second machine agree on (decision 16)."""
