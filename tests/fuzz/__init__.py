"""Mutated files against every reader: what is judged, how, and by whom. `python -m fuzz` runs it (see __main__)."""
