"""One module per claim: what is run, at which scale, and how to read the table it yields.

Plain data: importing this package is cheap. ``sextant study`` runs it.
"""

from studies.precision import PRECISION
from studies.pruning import PRUNING
from studies.study import Arm, MetricsTable, Probe, Scale, Stage, Study

STUDIES = {study.name: study for study in (PRECISION, PRUNING)}

__all__ = ["STUDIES", "Arm", "MetricsTable", "Probe", "Scale", "Stage", "Study"]
