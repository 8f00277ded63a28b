"""``python -m sextant``."""

from sextant.cli import entry_point

entry_point()
