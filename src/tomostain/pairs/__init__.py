"""A CT plane and a stain on one grid: made, saved, loaded, split by specimen."""
