"""What all of Celosia agrees on: the machine, its numbers, the quantised graph, the program."""
