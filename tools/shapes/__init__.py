"""What the demo's model learns from, that model untrained, and scores of what it renders."""
