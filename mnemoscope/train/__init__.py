"""Training, of decoders and of language models: one loop, readable in one sitting, resumable at every checkpoint."""
