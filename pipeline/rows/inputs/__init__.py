"""Images and videos that rows name: which may be read, how, and what they contain."""
