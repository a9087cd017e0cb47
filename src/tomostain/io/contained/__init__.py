"""Pixel decoders of slides and pictures, kept in a process of their own: a broken file can end that process, not ours.

Nothing here imports the rest of the package, so that the process is up in a fraction of a second.
"""
