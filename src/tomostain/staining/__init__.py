"""A whole volume, out of core: block by block, each written once."""
