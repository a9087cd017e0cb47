"""Pixel decoders of slides and pictures, run in a process of their own, so that a damaged file cannot crash tomostain.

Only light modules of the package are imported here, so that the process starts in a fraction of a second.
"""
