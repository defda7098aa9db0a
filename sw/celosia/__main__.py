"""``python -m celosia``."""

from celosia.entry import main

main()
