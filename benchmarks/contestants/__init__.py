"""Programs that ``benchmarks.learn_dqn`` times in turns; each runs in a process of its own."""
