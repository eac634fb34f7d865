"""Requests in, clips out: recipes side by side, their forwards fused."""
