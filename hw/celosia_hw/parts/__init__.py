"""Small parts that know nothing of layers."""
