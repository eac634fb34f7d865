"""Compare an output's clips with those of another output, model or run, by a sample with a bound."""
