"""Fine-tuning: questions and passages of a collection, training, and whether it was worth it."""
