"""What other definitions of perplexity would have said, from the same logits."""
