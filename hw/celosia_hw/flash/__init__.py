"""The reader of the board's SPI flash."""
