"""Where in the volume was a slide cut, and what pair of images follows from it."""
