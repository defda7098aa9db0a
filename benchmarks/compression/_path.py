"""Makes `harness`, one folder up, importable by the scripts of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
