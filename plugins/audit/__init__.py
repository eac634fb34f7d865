"""How far the clips of an output are from those of another output, model or run: sampled, with a bound."""
