"""Pages and pictures to look at an output: gallery, report, contact sheets and grids."""
