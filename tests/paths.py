"""Where tests find what is not theirs: the repository, and data that is beside it on some machines."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
