"""Side-by-side measurements: this project against others, and against the bare gradient."""
