"""The note that marks an image of the phantom; imports nothing, so that decoders can use it."""

SIMULATED = "simulated by tomostain phantom"
"""Written into the metadata of every file of the phantom, which no microscope and no X-ray scanner has made."""
