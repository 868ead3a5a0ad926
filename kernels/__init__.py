"""The recurrences themselves: definition, chunked PyTorch, Triton."""
