"""Commands that check an output, repair it and render its rows again."""
