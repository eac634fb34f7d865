"""Pages and pictures in which people look at an output: gallery, report, contact sheets and grids."""
