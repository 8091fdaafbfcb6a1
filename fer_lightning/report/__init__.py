"""Reports of runs, made from run folders: figures, terminal tables, self-contained HTML pages.

``run_results`` reads run folders, ``tables`` makes tables for the terminal and CSV, ``figures/`` draws,
``drawing`` saves the figures of a run, ``page`` writes HTML, and ``paper/`` reproduces the paper. ``tables``
imports neither torch nor matplotlib.
"""
