"""One module per claim: what is run, at which scale, and how to read the table it yields.

Plain data: importing this package is cheap. ``sextant study`` runs it.
"""

from studies.dt_mem_adaptation import DT_MEM_ADAPTATION
from studies.dt_mem_forgetting import DT_MEM_FORGETTING
from studies.dt_mem_games import DT_MEM_GAMES
from studies.dt_mem_hidden_goal import DT_MEM_HIDDEN_GOAL
from studies.dt_mem_meta_world import DT_MEM_META_WORLD
from studies.dt_mem_mixed_data import DT_MEM_MIXED_DATA
from studies.dt_mem_ml45 import DT_MEM_ML45
from studies.dt_mem_t_maze import DT_MEM_T_MAZE
from studies.precision import PRECISION
from studies.pruning import PRUNING
from studies.pruning_controls import PRUNING_CONTROLS
from studies.pruning_offline import PRUNING_OFFLINE
from studies.study import Arm, MetricsTable, Probe, Scale, Stage, Study, Transfer

_ALL = (
    PRECISION,
    PRUNING,
    PRUNING_CONTROLS,
    PRUNING_OFFLINE,
    DT_MEM_T_MAZE,
    DT_MEM_META_WORLD,
    DT_MEM_MIXED_DATA,
    DT_MEM_HIDDEN_GOAL,
    DT_MEM_ADAPTATION,
    DT_MEM_ML45,
    DT_MEM_FORGETTING,
    DT_MEM_GAMES,
)
STUDIES = {study.name: study for study in _ALL}

__all__ = ["STUDIES", "Arm", "MetricsTable", "Probe", "Scale", "Stage", "Study", "Transfer"]
