"""Render each row cheaply first, and only the best of these drafts in full."""
