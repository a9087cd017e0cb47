"""How a stainer's network is run: CT tiles in, colours out; one file for each library."""
