"""Speed, side by side: what Sextant costs beside the physical limit and beside what a user would pick instead.

Every script runs its contestants in turns, in one run, and reports medians of ratios between neighbouring turns, so
that a slow moment of the machine hits all of them alike. See ``docs/benchmarks.md``.
"""
