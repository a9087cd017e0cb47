"""What a report is made of: pictures, figures, where the errors are, and the page. Pure functions; no file is read."""
