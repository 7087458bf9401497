"""What several tests share: stand-in weights, a Hub on loopback, where files are."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"  # numbers that other code, or this code before, computed
PICTURES = TESTS / "pictures"  # see its README for their origin
