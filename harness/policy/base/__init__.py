"""How the embedded policy is made: its tokenizer, its corpus, its training, and the card that reports it."""
