"""Draw clips of an output side by side: a contact sheet, or a grid that plays."""
