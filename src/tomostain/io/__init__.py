"""Bytes in and out: volumes, slides and pictures; what needs a decoder is decoded in a process of its own."""
