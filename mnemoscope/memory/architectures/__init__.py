"""One file per architecture, named after Hugging Face's ``model_type``; each exposes ``ARCHITECTURE``."""
