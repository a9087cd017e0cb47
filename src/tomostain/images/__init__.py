"""Arrays in the world: volumes, slides, and where they are. No file format and no network here."""
