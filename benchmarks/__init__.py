"""Side-by-side measurements: ours and the other in turn, in one process, as ratios."""
