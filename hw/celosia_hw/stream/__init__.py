"""The second machine's control path: from the stream in main memory to steps."""
