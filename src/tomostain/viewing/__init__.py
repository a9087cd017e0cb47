"""Looking at a specimen: CT, stain and slides, linked, in browser and napari; computes nothing that is a result."""
