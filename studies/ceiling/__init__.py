"""How good can a text get? Hundreds of instructions and demonstrations for a task of the study of trade-offs."""
