"""The words by which an image of the phantom is told from one of a real specimen; imports nothing, so decoders may."""

SIMULATED = "simulated by tomostain phantom"
"""What a file of the phantom says about itself in its own metadata: no microscope and no X-ray has seen it."""
