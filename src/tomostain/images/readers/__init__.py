"""Readers of volumes, one file a family: a path in, a lazy Volume out; nothing is read before a window is asked for."""
