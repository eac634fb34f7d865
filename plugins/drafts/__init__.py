"""Drafts: each row rendered cheaply first, and only the best of them in full."""
