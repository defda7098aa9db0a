"""What tests of single blocks play their vectors with."""
