"""How a study's numbers are written: records as CSV, and several values in one cell of a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from statistics import fmean
from typing import Any


def records_csv(records: Sequence[Any]) -> str:
    """Gives one line per record, dataclasses of one kind, below the names of their fields; at least one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(records[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(record) for record in records)
    return text.getvalue()


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Gives ``mean [least, most]``; nothing where there are no values."""
    if not values:
        return ""
    return f"{fmean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"
