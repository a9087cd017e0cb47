"""Specimens whose truth is known: anatomy, its CT, its stained slides, and everything that is true about them."""
