"""Golden model, simulators and cocotb benches."""
