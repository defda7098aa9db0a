"""Models of the gateware's blocks: pure functions on Python integers, written from the blocks'
contracts, for tests to compare the gateware with."""
