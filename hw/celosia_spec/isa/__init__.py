"""What the compiler, the gateware and the simulators agree on: array parameters, memories, words
and their fields, error codes. Every width and every field position of the machine stands here and
nowhere else. Amaranth and processes are unknown to all.
"""
