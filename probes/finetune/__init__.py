"""Fine-tuning: a stock head of `transformers` on an encoder, trained by a loop that hides nothing."""
