"""Commands that show an output: how far it is, what failed, its clips and figures."""
