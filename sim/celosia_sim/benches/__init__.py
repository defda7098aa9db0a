"""cocotb benches. They are imported by the simulator's process."""
