"""From main memory into the banks."""
