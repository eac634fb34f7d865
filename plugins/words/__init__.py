"""What language models say about clips, and write for rows: judgements, captions, prompts."""
