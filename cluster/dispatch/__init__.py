"""Which rows go to which worker, and when one is given up: pure, without Ray or a clock."""
