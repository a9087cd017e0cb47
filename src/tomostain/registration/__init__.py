"""Where in the volume was a slide cut."""
