"""Images and videos that rows name: what may be read, how, and what is in it."""
