"""How numbers are written: rows and records as CSV, and several values in one cell of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Gives one line per row below the names of their columns, all the same; at least one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def records_csv(records: Sequence[Any]) -> str:
    """Gives one line per record, dataclasses of one kind, below the names of their fields; at least one."""
    return rows_csv([vars(record) for record in records])


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Gives ``mean [least, most]``; nothing where there are no values."""
    if not values:
        return ""
    return f"{fmean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"
