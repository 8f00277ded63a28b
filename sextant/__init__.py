"""The command line and the run directory: configs in, runs out."""
