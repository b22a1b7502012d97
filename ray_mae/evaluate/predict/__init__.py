"""`predict`: what a fine-tuned classifier says of new files."""
