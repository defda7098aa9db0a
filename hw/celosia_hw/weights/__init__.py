"""From weight words to the lanes' operands."""
