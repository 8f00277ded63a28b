"""Settings all tests share; read before any test module imports torch or Tianshou."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # Tianshou compiles its return functions at import: seconds
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
