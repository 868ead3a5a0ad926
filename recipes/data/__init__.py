"""Speech corpora → batches."""
