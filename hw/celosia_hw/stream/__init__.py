"""The control path: from the stream in main memory to steps."""
