"""Loops and run state: online training, evaluation, checkpoints, seeds, logs."""
